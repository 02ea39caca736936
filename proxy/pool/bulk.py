"""Heavy streams of one pool: which they are, and a link for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from proxy.pool.usage import BULK_BYTES, PoolUsage, is_bulk
from proxy.pump.lane import Lane
from proxy.pump.link import Link
from proxy.pump.session import LaneSession

COUNT = 0.25
"""Seconds between two counts of the open streams, at least: a pool that is asked for links all the time looks often."""


class BulkStreams:
    """Tells `usage` which services prove heavy. Times are seconds of the same clock as there."""

    def __init__(self, usage: PoolUsage) -> None:
        self._usage = usage
        self._moved_at_look = 0
        self._count_at = float("-inf")

    def note(self, lane: Lane, now: float, ended: bool = True) -> None:
        """What a stream has moved so far, or until its end, if this host called it."""
        if lane.observer.direction == "outbound":
            self._usage.moved(lane.observer.service, lane.bytes_moved, lane.age, now, ended)

    def set_apart(self, link: Link, links: Sequence[Link]) -> Link:
        """A link for bulk, if there are several: the one with the fewest streams."""
        usable = [each for each in links if each.usable]
        if len(usable) > 1:
            link = min(usable, key=lambda each: each.streams)
            link.session.bulk = True
        return link

    def look(self, sessions: Iterable[LaneSession], now: float) -> None:
        """See which services are heavy no more, and which open streams have proved heavy. Streams are gone through only
        where some are counted, or the sessions have moved as much as a heavy one does.
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
