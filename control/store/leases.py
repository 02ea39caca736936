"""How long each lease has still to live: numbers in, numbers out; nothing here knows a clock."""

from __future__ import annotations

import heapq
import math


class Leases:
    """Deadlines of leases, in seconds of whatever clock the caller has.

    A lease that is due is *dying* until `forget`: nobody can keep it alive any more, and `due` names it again.
    """

    def __init__(self) -> None:
        self._ttl: dict[int, float] = {}
        self._deadline: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._dying: set[int] = set()

    def __len__(self) -> int:
        return len(self._ttl)

    def add(self, lease: int, ttl: float, now: float) -> None:
        """A new lease with its whole TTL."""
        self._ttl[lease] = ttl
        self._deadline[lease] = now + ttl
        heapq.heappush(self._heap, (now + ttl, lease))

    def keep(self, lease: int, now: float) -> bool:
        """Give the lease its whole TTL again; False: it is dying, or there is none."""
        if lease not in self._deadline:
            return False
        # The heap keeps its old entry, which is earlier: `next` finds out when it comes to that.
        self._deadline[lease] = now + self._ttl[lease]
        return True

    def unheard(self, lease: int, now: float) -> float | None:
        """Seconds since the lease last got its whole TTL; None: it is dying, or there is none."""
        deadline = self._deadline.get(lease)
        return None if deadline is None else max(0.0, now - (deadline - self._ttl[lease]))

    def forget(self, lease: int) -> None:
        """Forget a lease that has ended, or that was never made after all."""
        self._ttl.pop(lease, None)
        self._deadline.pop(lease, None)
        self._dying.discard(lease)

    def renew(self, now: float) -> None:
        """Give all leases but the dying ones their whole TTL again, since nobody could be heard for a while."""
        self._deadline = {lease: now + self._ttl[lease] for lease in self._deadline}

    def next(self) -> float:
        """Time at which `due` is to be called next; infinity without leases."""
        while self._heap:
            noted, lease = self._heap[0]
            deadline = self._deadline.get(lease)
            if deadline == noted:
                return noted
            if deadline is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (deadline, lease))
        return math.inf

    def due(self, now: float) -> list[int]:
        """All leases that are dying at `now`."""
        while self.next() <= now:
            _, lease = heapq.heappop(self._heap)
            del self._deadline[lease]
            self._dying.add(lease)
        return sorted(self._dying)
