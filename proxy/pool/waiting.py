"""Streams that wait for a link of one pool, first come first served, no more than a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Waiter(Protocol):
    """A stream that waits for a link."""

    def link_up(self) -> None:
        """There may be a link now: pick one, or wait again. The waiter was taken off the list before."""


class WaitingList:
    """The streams that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiters

    def add(self, waiter: Waiter, most: int) -> bool:
        """Put a stream on the list; False: `most` are there already."""
        if len(self._waiters) >= most:
            return False
        self._waiters[waiter] = None
        return True

    def remove(self, waiter: Waiter) -> bool:
        """Take a stream off the list; False: it is not there."""
        present = waiter in self._waiters
        self._waiters.pop(waiter, None)
        return present

    def serve_one(self) -> None:
        """Take the first stream, if any, off the list, and tell it that there is a link."""
        if self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.link_up()

    def serve_all(self) -> None:
        """Take all off the list, and tell each that there is a link. One that finds none may wait again meanwhile."""
        waiters = list(self._waiters)
        self._waiters.clear()
        for waiter in waiters:
            waiter.link_up()
