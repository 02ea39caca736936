"""Memory of sessions without a link, bounded for all peers together.

A session may wait for minutes, and what its streams have written is kept all the time: each has a bound of its own
(``links.replay_buffer``), but there may be two for each peer, and all peers may be out of reach at once. Together they
may keep ``limits.memory``. Beyond that the one that has waited longest ends, one without streams before all others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proxy.errors import CloseReason
from proxy.mux.sizes import SLAB_SIZE
from proxy.pump.session import LaneSession


class SuspendedBytes:
    """Counts what the suspended sessions of all pools keep.

    Args:
        limit: returns the bytes that they may keep together.

    Attributes:
        total: bytes that they keep.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self.total = 0
        self._limit = limit
        self._counted: dict[LaneSession, int] = {}

    def count(self, session: LaneSession) -> None:
        """The session is suspended, and may keep more than before. Whatever is too much ends with the turn."""
        kept = kept_by(session)
        self.total += kept - self._counted.get(session, 0)
        self._counted[session] = kept
        while self.total > (limit := self._limit()):
            last = min(self._counted, key=lambda each: (bool(each.streams), each.lost_at))
            detail = f"sessions without a link keep {self.total} bytes, and limits.memory is {limit}"
            self.drop(last)
            session.pump.at_end(partial(last.end, CloseReason.OVER_BUDGET, detail))

    def drop(self, session: LaneSession) -> None:
        """The session has a link, or has ended. Idempotent."""
        self.total -= self._counted.pop(session, 0)


def kept_by(session: LaneSession) -> int:
    """Bytes that a suspended session keeps: what is not acknowledged, and the slab that is being filled."""
    return session.out.unacked + SLAB_SIZE
