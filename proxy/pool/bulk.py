"""Heavy streams of one pool: which they are, and a link for them."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.pool.usage import BULK_BYTES, Usage, is_bulk
from proxy.pump.lane import Lane
from proxy.pump.link import Link


class Bulk:
    """Tells `usage` which services prove heavy. Times are seconds of the same clock as there."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._moved_at_look = 0

    def note(self, lane: Lane, now: float) -> None:
        """What a stream has moved so far, if this host called it."""
        if lane.owner.direction == "outbound":
            self._usage.moved(lane.owner.service, lane.bytes_moved, lane.age, now)

    def set_apart(self, link: Link, links: Sequence[Link]) -> Link:
        """A link for bulk, if there are several: the one with the fewest streams."""
        usable = [each for each in links if each.usable]
        if len(usable) > 1:
            link = min(usable, key=lambda each: each.streams)
            link.session.bulk = True
        return link

    def look(self, links: Sequence[Link], now: float) -> None:
        """See which of the open streams have proved heavy; not worth it unless the links have moved that much."""
        moved = 0
        for link in links:
            link.session.bulk = link.session.bulk and link.streams > 0
            moved += link.session.out.end + link.session.received
        if 0 <= moved - self._moved_at_look < BULK_BYTES:
            return
        self._moved_at_look = moved
        for link in links:
            for lane in link.session.streams.values():
                if is_bulk(lane.bytes_moved, lane.age):
                    self.note(lane, now)
