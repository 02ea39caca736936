"""Streams that wait for a link of one pool, in the order in which they came, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Waiter(Protocol):
    """A stream that waits for a link."""

    def link_up(self) -> None:
        """There is a link now. Called at most once, after the waiter was taken off the list."""


class WaitingList:
    """See the module's text."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiters

    def add(self, waiter: Waiter, most: int) -> bool:
        """Put it on the list; False: `most` are there already."""
        if len(self._waiters) >= most:
            return False
        self._waiters[waiter] = None
        return True

    def remove(self, waiter: Waiter) -> bool:
        """Take it off the list; False: it is not there."""
        present = waiter in self._waiters
        self._waiters.pop(waiter, None)
        return present

    def serve_one(self) -> None:
        """The first one, if any, may go on."""
        if self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.link_up()

    def serve_all(self) -> None:
        """All may go on. Some may come back while they are told."""
        waiters = list(self._waiters)
        self._waiters.clear()
        for waiter in waiters:
            waiter.link_up()
