"""The store that one control server has in one file, without anything to install.

All work on the file is a queue of calls. One task takes what waits, has it done in a worker thread as one transaction
(a thousand hosts that register at once share a few fsyncs), gives the commits to the watchers, and only then answers.
Reads go the same way: what they see is on the disk.

Leases stand in the file; how long each has still to live is known in memory only, so that keeping one alive writes
nothing, and after a restart each has its whole TTL again.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
import trio
from trio.abc import ReceiveChannel

from control.store.base import (
    Commit,
    Compacted,
    Condition,
    Conflict,
    Item,
    LeaseGone,
    Put,
    StoreError,
    StoreSnapshot,
    check,
    check_key,
    check_keys,
)
from control.store.database import Database
from control.store.leases import Leases
from control.store.watches import StoreWatch

log = structlog.get_logger()

T = TypeVar("T")

BATCH = 256
"""Calls in one transaction at most: one that fails takes all of them with it."""
RETRY = 1.0
"""Seconds until leases that are due are tried again after the disk refused."""
ABSENCE = 1.0
"""Seconds that this process may be late for a lease. If it is later it was stopped or starved, and heard nobody: every
lease gets its whole TTL again."""


@asynccontextmanager
async def open_sqlite(path: str) -> AsyncIterator[SqliteStore]:
    """The store in the file `path`, which is made if it is missing. Leaving the block closes it.

    Raises StartError if the file cannot be used: its directory is missing, permissions, locked by another process,
    damaged, not a store, or of a newer version. On a full disk a store that is there can be read.

    Leaving waits for the disk, also when cancelled; calls that still wait for their turn raise StoreError, watches end
    with it.
    """
    database = await trio.to_thread.run_sync(Database, path)
    if database.full:
        log.error("the disk is full: what the store knows is served, and nothing can be changed", file=path)
    failed: Exception | None = None
    try:
        store = SqliteStore(database, await trio.to_thread.run_sync(database.leases))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._work)
            nursery.start_soon(store._expire)
            # The caller's own errors are to reach it as they are, not in a group.
            try:
                yield store
            except Exception as error:
                failed = error
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(database.close)
    if failed is not None:
        raise failed


class _Job:
    """A call on the file, and what came of it."""

    def __init__(self, work: Callable[[Database], Any], alone: bool) -> None:
        self.work = work
        self.alone = alone
        self.taken = trio.Event()
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None


class SqliteStore:
    """See `control.store.base.Store`; made by `open_sqlite`.

    A call that is cancelled before its turn has not happened. Once it has its turn, it waits for the disk and returns.
    """

    def __init__(self, database: Database, leases: dict[int, float]) -> None:
        self.epoch: str = database.epoch
        self._database = database
        self._waiting: deque[_Job] = deque()
        self._news = trio.Event()
        self._closed = False
        self._watches: set[StoreWatch] = set()
        self._leases = Leases()
        self._sooner = trio.Event()
        for lease, ttl in leases.items():
            self._leases.add(lease, ttl, trio.current_time())
        # Our own, so that no other user of trio's threads keeps the file waiting.
        self._thread = trio.CapacityLimiter(1)

    async def read(self, prefix: str) -> StoreSnapshot:
        check_key(prefix)
        return await self._ask(lambda database: database.read(prefix))

    async def find(self, *keys: str) -> tuple[Item | None, ...]:
        check_keys(keys)
        return await self._ask(lambda database: database.find(keys))

    async def commit(
        self, *, when: Sequence[Condition] = (), put: Sequence[Put] = (), delete: Sequence[str] = ()
    ) -> int:
        check(when, put, delete)
        return await self._ask(lambda database: database.commit(when, put, delete))

    @asynccontextmanager
    async def watch(self, prefix: str, after: int) -> AsyncIterator[ReceiveChannel[Commit]]:
        check_key(prefix)
        watch = StoreWatch(prefix, after)
        # Added first, so that no commit is missed; `begin` puts the history before what was offered meanwhile.
        self._watches.add(watch)
        try:
            watch.begin(await self._ask(lambda database: database.history(prefix, after)))
            yield watch
        finally:
            self._watches.discard(watch)
            watch.end(trio.ClosedResourceError("the watch was closed"))

    async def grant(self, ttl: float) -> int:
        lease = secrets.randbelow((1 << 63) - 1) + 1
        await self._ask(lambda database: database.grant(lease, ttl))
        self._leases.add(lease, ttl, trio.current_time())
        self._sooner.set()
        return lease

    async def keep_alive(self, lease: int) -> None:
        await trio.lowlevel.checkpoint()
        if not self._leases.keep(lease, trio.current_time()):
            raise LeaseGone("the lease is gone")

    async def unheard(self, lease: int) -> float:
        await trio.lowlevel.checkpoint()
        found = self._leases.unheard(lease, trio.current_time())
        if found is None:
            raise LeaseGone("the lease is gone")
        return found

    async def revoke(self, lease: int) -> None:
        await self._ask(lambda database: database.revoke(lease))
        self._leases.forget(lease)

    async def backup(self, path: str) -> None:
        """Write a copy of the store to `path`, which must not exist: whole or not at all, readable by its owner only.

        It is as the store was at one moment. Writes wait meanwhile. Raises StoreError.
        """
        await self._ask(lambda database: database.backup(path), alone=True)

    async def _ask(self, work: Callable[[Database], T], alone: bool = False) -> T:
        if self._closed:
            raise self._closed_error()
        job = _Job(work, alone)
        self._waiting.append(job)
        self._news.set()
        try:
            await job.taken.wait()
        finally:
            if not job.taken.is_set():
                self._waiting.remove(job)
        with trio.CancelScope(shield=True):
            await job.done.wait()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    async def _work(self) -> None:
        """Do what waits, until cancelled."""
        try:
            while True:
                while not self._waiting:
                    self._news = trio.Event()
                    await self._news.wait()
                jobs = self._take()
                try:
                    commits = await trio.to_thread.run_sync(self._do, jobs, limiter=self._thread)
                    for watch in self._watches:
                        for commit in commits:
                            watch.offer(commit)
                finally:
                    # Also after an error or cancellation: the callers wait in a shield.
                    for job in jobs:
                        job.done.set()
        finally:
            self._closed = True
            for job in self._waiting:
                job.error = self._closed_error()
                job.taken.set()
                job.done.set()
            self._waiting.clear()
            for watch in self._watches:
                watch.end(self._closed_error())

    def _closed_error(self) -> StoreError:
        return StoreError(f"{self._database.path}: the store is closed")

    def _take(self) -> list[_Job]:
        jobs = [self._waiting.popleft()]
        while self._waiting and len(jobs) < BATCH and not jobs[0].alone and not self._waiting[0].alone:
            jobs.append(self._waiting.popleft())
        for job in jobs:
            job.taken.set()
        return jobs

    def _do(self, jobs: list[_Job]) -> list[Commit]:
        """In the thread: do all jobs in one transaction. Returns the commits that they made; if the transaction fails,
        each job has the error.
        """
        database = self._database
        alone = jobs[0].alone
        try:
            if not alone:
                database.begin()
            for job in jobs:
                try:
                    job.result = job.work(database)
                except (Conflict, LeaseGone, Compacted) as error:
                    job.error = error
            if not alone:
                database.end()
        except Exception as error:
            database.undo()
            for job in jobs:
                job.error = StoreError(str(error))
            if isinstance(error, StoreError):
                return []
            raise
        return [] if alone else database.committed

    async def _expire(self) -> None:
        """End leases when they are due, until cancelled."""
        failing = False
        while True:
            deadline = self._leases.next()
            self._sooner = trio.Event()
            with trio.move_on_at(deadline):
                await self._sooner.wait()
            late = trio.current_time() - deadline
            if late > ABSENCE:
                log.warning(
                    "the store was stopped for a while; leases get their time again", kind=(), seconds=round(late, 1)
                )
                self._leases.renew(trio.current_time())
            while due := self._leases.due(trio.current_time()):
                try:
                    await self._ask(_revoking(due))
                except StoreError as error:
                    if not failing:
                        log.error("leases that are over could not be ended; trying on", error=str(error))
                    failing = True
                    await trio.sleep(RETRY)
                else:
                    failing = False
                    for lease in due:
                        self._leases.forget(lease)


def _revoking(leases: list[int]) -> Callable[[Database], None]:
    return lambda database: database.revoke(*leases)
