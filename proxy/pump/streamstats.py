"""Counts of streams."""

from __future__ import annotations

import trio

from proxy.pump.edges import Edges
from proxy.pump.refusedcalls import RefusedCalls
from proxy.pump.streamcounts import StreamCounts
from proxy.pump.streamlog import StreamLog
from proxy.pump.tally import Totals


class StreamStats(Totals):
    """All that is counted of streams.

    Args:
        counts: the same by service, peer and direction; None: its own. The others are as in `Totals`.

    Attributes:
        refused: whom this host has refused.
        edges: who talks to whom; whoever makes a stream counts it there, too.
    """

    # Without a dictionary of its own compiled code need not look there for methods.
    __slots__ = ("_idle", "counts", "edges", "refused")

    def __init__(self, trace: bool = False, counts: StreamCounts | None = None) -> None:
        super().__init__(trace)
        self.counts = StreamCounts() if counts is None else counts
        self.edges = Edges()
        self.refused = RefusedCalls()
        self._idle = trio.Event()

    @property
    def failed(self) -> int:
        """The sum of `failures`."""
        return sum(self.failures.values())

    def tapped(self, service: str, tap: StreamLog | None) -> None:
        """From now on this one hears of them; None: `access`. What takes calls of the service, and delivers its
        streams, must be made anew then: it takes the short way only where nobody hears of them.
        """
        if tap is None:
            del self.taps[service]
        else:
            self.taps[service] = tap

    @property
    def open(self) -> int:
        """Streams open now."""
        return self.opened - self.ended

    def none_open(self) -> None:
        """Whoever waits until `idle` may go on (`Totals`)."""
        self._idle.set()

    async def idle(self) -> None:
        """Return when no stream is open."""
        self.awaited += 1
        try:
            while self.open:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self.awaited -= 1
