"""Heavy streams of one pool: which services have them, and a link set apart for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from proxy.pool.usage import BULK_BYTES, PoolUsage, is_bulk
from proxy.pump.lane import Lane
from proxy.pump.link import Link
from proxy.pump.session import LaneSession

COUNT = 0.25
"""Least seconds between two counts of the open streams: a pool that is asked for links all the time decides often."""


class BulkStreams:
    """Tells `usage` what streams have moved, and sets links apart. Times are seconds of the clock that `usage` has."""

    def __init__(self, usage: PoolUsage) -> None:
        self._usage = usage
        self._moved_at_look = 0
        self._count_at = float("-inf")

    def note(self, lane: Lane, now: float, ended: bool = True) -> None:
        """Tell `usage` what a stream has moved, if this host opened it; it has `ended`, or goes on."""
        if lane.observer.direction == "outbound":
            self._usage.moved(lane.observer.service, lane.bytes_moved, lane.age, now, ended)

    def set_apart(self, link: Link, links: Sequence[Link]) -> Link:
        """The link for a heavy stream for which `choose` has found only `link`, which is not for bulk. If several are
        usable, it is the one with the fewest streams, which is for bulk from now on; else `link` itself.
        """
        usable = [each for each in links if each.usable]
        if len(usable) > 1:
            link = min(usable, key=lambda each: each.streams)
            link.session.bulk = True
        return link

    def look(self, sessions: Iterable[LaneSession], now: float) -> None:
        """Find out which services are no longer heavy, and which open streams have proved heavy by now. The streams are
        gone through only if a service is counted (`Uses.counted`), or the sessions have moved as many bytes since
        the last time as make one stream heavy. A link without streams is no longer for bulk.
        """
        self._usage.expire(now)
        moved, heavy, everything = 0, self._usage.any_bulk, list(sessions)
        for session in everything:
            session.bulk = session.bulk and len(session.streams) > 0 and heavy
            moved += session.out.end + session.received
        enough = not 0 <= moved - self._moved_at_look < BULK_BYTES
        count = self._usage.counted and now >= self._count_at
        if not (enough or count):
            return
        lanes = [lane for session in everything for lane in session.streams.values()]
        if count:
            self._count_at = now + COUNT
            self._usage.count(Counter(lane.observer.service for lane in lanes if lane.observer.direction == "outbound"))
        if enough:
            self._moved_at_look = moved
            for lane in lanes:
                if is_bulk(lane.bytes_moved, lane.age):
                    self.note(lane, now, ended=False)
