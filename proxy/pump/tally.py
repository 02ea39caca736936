"""How many streams there are and have been, and the one log line that a stream may get."""

from __future__ import annotations

from time import monotonic

import structlog
import trio

from proxy.errors import CloseReason

log = structlog.get_logger()

_EXPECTED = frozenset({CloseReason.FINISHED, CloseReason.ABORTED})
"""Ends that applications chose; any other is a failure of the mesh."""


class Tally:
    """Counts streams; whoever makes one calls `begin`, and `end` exactly once.

    Args:
        trace: whether streams that did not fail are logged (at debug level). Asked here and not in the logger, because
            a line costs as much as a message.

    Attributes:
        open: streams now; opened: streams ever; failed: those that nobody took, or that a proxy cut.
    """

    def __init__(self, trace: bool = False) -> None:
        self.open = self.opened = self.failed = 0
        self._trace = trace
        self._idle = trio.Event()

    def begin(self) -> None:
        """One more stream."""
        self.open += 1
        self.opened += 1

    def end(self, reason: CloseReason) -> bool:
        """One stream is over; whether it gets a line in the log (then call `report`)."""
        self.open -= 1
        if not self.open:
            self._idle.set()
        if reason in _EXPECTED:
            return self._trace
        self.failed += 1
        return True

    def report(self, reason: CloseReason, *, since: float, **fields: str | int | None) -> None:
        """Write the line: a warning if the stream failed. `since` is when it began, seconds (monotonic)."""
        level = log.debug if reason in _EXPECTED else log.warning
        level("stream ended", reason=reason.label, age_s=round(monotonic() - since, 3), **fields)

    async def idle(self) -> None:
        """Return when no stream is open."""
        while self.open:
            self._idle = trio.Event()
            await self._idle.wait()
