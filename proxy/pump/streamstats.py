"""Counts of streams, and the log line that a stream gets when it ends."""

from __future__ import annotations

from time import monotonic

import structlog
import trio

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.pump.edges import Edges
from proxy.pump.refusedcalls import RefusedCalls
from proxy.pump.streamcounts import StreamCounts
from proxy.pump.streamlog import StreamLog

log = structlog.get_logger()

_FINISHED = CloseReason.FINISHED
_LEVELS = {CloseReason.FINISHED: "debug", CloseReason.ABORTED: "info"}
"""Of the reasons for which applications end streams. Any other reason is a warning, and counts as a failure."""


class StreamStats:
    """Counts streams. Whoever makes a stream adds 1 to `opened`, and at its end calls `end` exactly once.

    Args:
        trace: whether streams that ended cleanly are logged too, at debug level. Checked here and not by the logger,
            because a line costs as much as a message.
        counts: the same by service, peer and direction; None: its own.

    Attributes:
        opened: streams since the start; ended: those of them that have ended.
        access: hears of each stream by itself (`pump.streamlog`); None: nobody does. It stays what it is when streams
            have begun.
        refused: whom this host has refused.
        edges: who talks to whom; whoever makes a stream counts it there, too.
        trace: as above; may be set at any time.
        aborted: those that an application aborted: it reset its connection, or closed it while the other one wrote.
        failures: by close reason, streams that were not delivered or that a proxy ended.
    """

    def __init__(self, trace: bool = False, counts: StreamCounts | None = None) -> None:
        self.counts = StreamCounts() if counts is None else counts
        self.opened = self.ended = self.aborted = 0
        self.failures: dict[CloseReason, int] = {}
        self.access: StreamLog | None = None
        self.edges = Edges()
        self.refused = RefusedCalls()
        self._taps: dict[str, StreamLog] = {}
        self._awaited = 0
        self.trace = trace
        self._idle = trio.Event()

    @property
    def failed(self) -> int:
        """The sum of `failures`."""
        return sum(self.failures.values())

    def log_of(self, service: str) -> StreamLog | None:
        """Who hears of the streams of a service by themselves; None: nobody does."""
        return self._taps.get(service, self.access)

    def tapped(self, service: str, tap: StreamLog | None) -> None:
        """From now on this one hears of them; None: `access`. What takes calls of the service, and delivers its
        streams, must be made anew then: it takes the short way only where nobody hears of them.
        """
        if tap is None:
            del self._taps[service]
        else:
            self._taps[service] = tap

    @property
    def open(self) -> int:
        """Streams open now."""
        return self.opened - self.ended

    def end(self, reason: CloseReason) -> bool:
        """Count the end of one stream. Returns whether it gets a line in the log: then call `report`."""
        self.ended += 1
        if self._awaited and self.ended == self.opened:
            self._idle.set()
        if reason is _FINISHED:
            return self.trace
        if reason is CloseReason.ABORTED:
            self.aborted += 1
            return True
        self.failures[reason] = self.failures.get(reason, 0) + 1
        return True

    def report(
        self,
        reason: CloseReason,
        *,
        since: float,
        service: str,
        direction: StreamDirection,
        peer: str | None,
        **fields: str | int,
    ) -> None:
        """Log the line: debug for a clean end, info if an application aborted the stream, a warning if it failed. Ends
        of one service, with one peer and reason, are summarised. `since`: when it began, seconds (monotonic).
        """
        level = _LEVELS.get(reason, "warning")
        getattr(log, level)(
            "stream ended",
            kind=(service, direction, peer, reason),
            reason=reason.label,
            age_s=round(monotonic() - since, 3),
            service=service,
            direction=direction,
            peer=peer,
            **fields,
        )

    async def idle(self) -> None:
        """Return when no stream is open."""
        self._awaited += 1
        try:
            while self.open:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self._awaited -= 1
