"""A store that notes how long each of its operations takes."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import TypeVar

from trio.abc import ReceiveChannel

from control.base.histogram import Histogram
from control.store.base import Commit, Condition, Item, Put, Store, StoreSnapshot

__all__ = ["OPERATIONS", "SECONDS", "TimedStore"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
"""Bounds: from a read of SQLite to the time that a request has."""
OPERATIONS = ("read", "find", "commit", "grant", "keep_alive", "unheard", "revoke", "backup")
T = TypeVar("T")


class TimedStore:
    """Does what `store` does (`control.store.base.Store`).

    Attributes:
        seconds: by operation, also of those that failed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.epoch = store.epoch
        self.seconds = {operation: Histogram(SECONDS) for operation in OPERATIONS}

    async def _timed(self, operation: str, work: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            return await work
        finally:
            self.seconds[operation].observe(perf_counter() - began)

    async def read(self, prefix: str) -> StoreSnapshot:
        """See `Store`, as all methods."""
        return await self._timed("read", self._store.read(prefix))

    async def find(self, *keys: str) -> tuple[Item | None, ...]:
        """See `Store`."""
        return await self._timed("find", self._store.find(*keys))

    async def commit(
        self, *, when: Sequence[Condition] = (), put: Sequence[Put] = (), delete: Sequence[str] = ()
    ) -> int:
        """See `Store`."""
        return await self._timed("commit", self._store.commit(when=when, put=put, delete=delete))

    def watch(self, prefix: str, after: int) -> AbstractAsyncContextManager[ReceiveChannel[Commit]]:
        """See `Store`."""
        return self._store.watch(prefix, after)

    async def grant(self, ttl: float) -> int:
        """See `Store`."""
        return await self._timed("grant", self._store.grant(ttl))

    async def keep_alive(self, lease: int) -> None:
        """See `Store`."""
        await self._timed("keep_alive", self._store.keep_alive(lease))

    async def unheard(self, lease: int) -> float:
        """See `Store`."""
        return await self._timed("unheard", self._store.unheard(lease))

    async def revoke(self, lease: int) -> None:
        """See `Store`."""
        await self._timed("revoke", self._store.revoke(lease))

    async def backup(self, path: str) -> None:
        """See `Store`."""
        await self._timed("backup", self._store.backup(path))
