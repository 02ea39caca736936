"""How many streams there are and have been, and the one log line that a stream may get."""

from __future__ import annotations

from time import monotonic

import structlog
import trio

from control.base.tokenbucket import TokenBucket
from proxy.errors import CloseReason

log = structlog.get_logger()

_EXPECTED = frozenset({CloseReason.FINISHED, CloseReason.ABORTED})
"""Ends that applications chose; any other is a failure of the mesh."""
_NONE = frozenset[CloseReason]()
LINES_PER_SECOND = 100
LINES_AT_ONCE = 1000
"""Lines about streams that failed: who makes them fail must not choose how much we write (a line costs as much as a
stream does). The next line says how many were not written."""


class StreamStats:
    """Counts streams. Whoever makes one adds 1 to `opened`, and calls `end` exactly once; or, where that call would be
    dear and the reason is in `unlogged`, adds 1 to `ended`.

    Args:
        trace: whether streams that did not fail are logged (at debug level). Asked here and not in the logger, because
            a line costs as much as a message. May be set later, too.

    Attributes:
        opened: streams ever; ended: those of them that are over.
        unlogged: reasons for an end that call for nothing else.
        failures: streams that nobody took, or that a proxy cut, by the close reason.
    """

    def __init__(self, trace: bool = False) -> None:
        self.opened = self.ended = 0
        self.failures: dict[CloseReason, int] = {}
        self._awaited = 0
        self.trace = trace
        self._lines = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)
        self._suppressed = 0
        self._idle = trio.Event()

    @property
    def failed(self) -> int:
        """The sum of `failures`."""
        return sum(self.failures.values())

    @property
    def trace(self) -> bool:
        """See above."""
        return self._trace

    @trace.setter
    def trace(self, trace: bool) -> None:
        self._trace = trace
        self._look()

    def _look(self) -> None:
        self.unlogged = _NONE if self._trace or self._awaited else _EXPECTED

    @property
    def open(self) -> int:
        """Streams now."""
        return self.opened - self.ended

    def end(self, reason: CloseReason) -> bool:
        """One stream is over; whether it gets a line in the log (then call `report`)."""
        self.ended += 1
        if self.ended == self.opened:
            self._idle.set()
        if reason in _EXPECTED:
            return self._trace
        self.failures[reason] = self.failures.get(reason, 0) + 1
        if self._lines.take(monotonic()):
            return True
        self._suppressed += 1
        return False

    def report(self, reason: CloseReason, *, since: float, **fields: str | int | None) -> None:
        """Write the line: a warning if the stream failed. `since` is when it began, seconds (monotonic)."""
        level = log.debug if reason in _EXPECTED else log.warning
        if self._suppressed:
            fields["suppressed"], self._suppressed = self._suppressed, 0
        level("stream ended", reason=reason.label, age_s=round(monotonic() - since, 3), **fields)

    async def idle(self) -> None:
        """Return when no stream is open."""
        self._awaited += 1
        self._look()
        try:
            while self.open:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self._awaited -= 1
            self._look()
