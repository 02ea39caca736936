"""Who talks to whom, with rates: read when somebody asks, from what streams have left at their edges (`pump.edges`) and
what the open ones have moved by now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import NamedTuple

import trio

from control.api.messages import EdgeInfo, Edges, busiest
from proxy.outbound.call import Call
from proxy.pump import edges as pump_edges
from proxy.pump.edges import Edge
from proxy.pump.lane import Lane
from proxy.telemetry.slices import slices

RECENT, OLD = 0.5, 30.0
"""Seconds: who asks so soon after somebody else gets the same answer; and rates are those of at most so long."""
FIRST = 1.0
"""Seconds over which rates are measured where nobody has asked lately."""


class EdgeCounts(NamedTuple):
    """Of one edge, since it was made."""

    opened: int
    failed: int
    sent: int
    received: int


class EdgeStall(NamedTuple):
    """Streams of an edge that are held back: how many, what holds the longest, and for how many seconds."""

    streams: int
    cause: str
    seconds: float


NO_STALL = EdgeStall(0, "", 0.0)


class EdgeSample(NamedTuple):
    """All edges at a moment, seconds (monotonic)."""

    at: float
    counts: dict[Edge, EdgeCounts]
    stalled: dict[Edge, EdgeStall]


class EdgeView:
    """Reads the edges of one host.

    Args:
        host: its name.
        lanes, splices: the open streams, with and without a link.
    """

    def __init__(
        self,
        host: str,
        edges: pump_edges.Edges,
        lanes: Callable[[], Iterable[Lane]],
        splices: Callable[[], Iterable[Call]],
    ) -> None:
        self._host, self._edges, self._lanes, self._splices = host, edges, lanes, splices
        self._one = trio.Lock()
        self._before: EdgeSample | None = None
        self._last: EdgeSample | None = None

    async def read(self) -> Edges:
        """``GET /edges``: the busiest first. Takes `FIRST` where nobody has asked for `OLD`."""
        async with self._one:
            now = monotonic()
            if self._last is None or now - self._last.at > OLD:
                self._last = await self._sample()
                await trio.sleep(FIRST)
                now = self._last.at + OLD
            if now - self._last.at >= RECENT:
                self._before, self._last = self._last, await self._sample()
            assert self._before is not None, "the second look has one before it"
            return Edges(edges=sorted(self._told(self._before, self._last), key=busiest))

    async def _sample(self) -> EdgeSample:
        """Streams that begin meanwhile are not in it. Of those that end meanwhile the next one has the rest."""
        at = monotonic()
        self._edges.sweep(at)
        found = {edge: [edge.opened, edge.failed, edge.sent, edge.received] for edge in self._edges}
        splices, stalled = list(self._splices()), dict[Edge, EdgeStall]()
        async for lanes in slices(self._lanes()):
            for lane in lanes:
                if (edge := lane.observer.edge) in found:
                    found[edge][2] += lane.bytes_sent
                    found[edge][3] += lane.bytes_received
                    if lane.stalls is not None:
                        _add_stall(stalled, edge, lane.stalls.held(at))
        for call in splices:
            if call.splice is not None and call.edge in found:
                found[call.edge][2] += call.splice.caller.received
                found[call.edge][3] += call.splice.service.received
                _add_stall(stalled, call.edge, call.splice.held(at))
        last = {} if self._last is None else self._last.counts
        none = EdgeCounts(0, 0, 0, 0)
        counts = {
            edge: EdgeCounts(*map(max, counts, last.get(edge, none)))  # nothing ever decreases
            for edge, counts in found.items()
        }
        return EdgeSample(at, counts, stalled)

    def _told(self, before: EdgeSample, last: EdgeSample) -> Iterator[EdgeInfo]:
        seconds, now = max(last.at - before.at, 0.001), monotonic()
        for edge, counts in last.counts.items():
            if edge.opened == 0:
                continue
            earlier = before.counts.get(edge, EdgeCounts(0, 0, 0, 0))
            opened, failed, sent, received = (
                round((count - was) / seconds, 2) for count, was in zip(counts, earlier, strict=True)
            )
            back, stall = edge.direction == "inbound", last.stalled.get(edge, NO_STALL)
            caller_host, host = (edge.peer, self._host) if back else (self._host, edge.peer)
            yield EdgeInfo(
                caller=edge.caller,
                caller_host=caller_host or self._host,
                service=edge.service,
                host=self._host if edge.direction == "local" else host,
                direction=edge.direction,
                streams=edge.open,
                opened=counts.opened,
                failed=counts.failed,
                sent=counts.received if back else counts.sent,
                received=counts.sent if back else counts.received,
                opened_per_s=opened,
                failed_per_s=failed,
                sent_per_s=received if back else sent,
                received_per_s=sent if back else received,
                stalled=stall.streams,
                stalled_by=stall.cause or None,
                stalled_s=round(stall.seconds, 1),
                reason=None if edge.reason is None else edge.reason.label,
                failing_s=None if edge.failing_since is None else round(now - edge.failing_since, 1),
            )


def _add_stall(stalled: dict[Edge, EdgeStall], edge: Edge, held: tuple[str, float] | None) -> None:
    """A stream of the edge is held back, by this and for so many seconds; None: it is not."""
    if held is not None:
        before = stalled.get(edge, NO_STALL)
        cause, seconds = max(held, (before.cause, before.seconds), key=lambda each: each[1])
        stalled[edge] = EdgeStall(before.streams + 1, cause, seconds)
