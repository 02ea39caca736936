"""What a watcher holds: commits that wait for it, bounded, and the reason why no more come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio
from trio.abc import ReceiveChannel

from control.store.base import Commit, Compacted

BYTES = 8 << 20
"""Held for one watcher that does not take what comes: several times the whole map of 1,000 hosts. To read everything
again is cheaper than more."""

COMMIT_OVERHEAD = 200
"""Bytes that a commit and each of its changes are counted for besides key and value; about what Python takes."""


def cost(commit: Commit) -> int:
    """Bytes that a commit is counted for."""
    each = (len(change.key) + len(change.value or b"") + COMMIT_OVERHEAD for change in commit.changes)
    return COMMIT_OVERHEAD + sum(each)


class StoreWatch(ReceiveChannel[Commit]):
    """The commits after revision `seen` that touch keys under `prefix`, for one task that receives.

    The store gives it everything, in order (`offer`); what it has had already or does not want is passed over.
    """

    def __init__(self, prefix: str, seen: int, limit: int = BYTES) -> None:
        self.prefix = prefix
        self.seen = seen
        self._limit = limit
        self._waiting: deque[tuple[Commit, int]] = deque()
        self._held = 0
        self._end: Exception | None = None
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def ended(self) -> bool:
        return self._end is not None

    def offer(self, commit: Commit) -> None:
        """The next commit, or one that came before; ends with Compacted when too much waits already."""
        if self._end is not None or commit.revision <= self.seen:
            return
        self.seen = commit.revision
        changes = tuple(change for change in commit.changes if change.key.startswith(self.prefix))
        if not changes:
            return
        mine = Commit(commit.revision, changes)
        size = cost(mine)
        # A single commit fits always: one of the largest size must not end every watch.
        if self._waiting and self._held + size > self._limit:
            self.end(Compacted("the watcher fell too far behind: read everything again"))
            return
        self._waiting.append((mine, size))
        self._held += size
        self._lot.unpark()

    def pass_over(self, revision: int) -> None:
        """There is nothing for it up to this revision but what it has been offered."""
        self.seen = max(self.seen, revision)

    def begin(self, history: Iterable[Commit]) -> None:
        """Put what was before in front of what has been offered so far."""
        early = [commit for commit, _ in self._waiting]
        self._waiting.clear()
        self._held = 0
        latest, self.seen = self.seen, 0
        for commit in (*history, *early):
            self.offer(commit)
        self.seen = max(self.seen, latest)

    def end(self, reason: Exception) -> None:
        """Nothing more comes, and what waits is dropped: the watcher raises `reason`, now and at each further call."""
        if self._end is None:
            self._end = reason
            self._waiting.clear()
            self._held = 0
            self._lot.unpark_all()

    async def receive(self) -> Commit:
        """The next commit. Raises what the watch has ended with; trio.ClosedResourceError after `aclose`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._end is not None:
                # Each time another one: a traceback is not to grow with each call.
                raise type(self._end)(*self._end.args)
            await self._lot.park()
        commit, size = self._waiting.popleft()
        self._held -= size
        await trio.lowlevel.cancel_shielded_checkpoint()
        return commit

    async def aclose(self) -> None:
        self.end(trio.ClosedResourceError("the watch was closed"))
        await trio.lowlevel.checkpoint()
