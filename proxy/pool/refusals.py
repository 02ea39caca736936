"""For how long a peer's host has refused connections, and nothing else (sans-IO).

One refusal says little: the peer's proxy may be on its way up again, and a firewall that is loading its rules refuses
too. What counts is a *run*: refusals only, one soon behind the other.
"""

from __future__ import annotations

QUESTIONS = 8
"""Questions in the time throughout which a peer must refuse, as far as `RARELY` and `OFTEN` allow."""
RARELY, OFTEN = 5.0, 0.05
"""Seconds between two questions, at most and at least."""
LOST_PACKET = 1.0
"""Seconds after which a kernel sends a SYN again (RFC 6298, section 2.1): so much later than expected a refusal may
come, and the run goes on. A longer silence ends it."""


def pause(timeout: float) -> float:
    """Seconds from a refusal to the next question, for a time throughout which a peer must refuse."""
    return min(max(timeout / QUESTIONS, OFTEN), RARELY)


class RefusalRun:
    """A run of refusals. Times are seconds by any clock that never goes back."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0

    def refused(self, now: float, timeout: float) -> None:
        """The peer has refused a connection; `timeout` as in `pause`."""
        if self._first is None or now - self._last > 3 * pause(timeout) + LOST_PACKET:
            self._first = now
        self._last = now

    def broken(self) -> None:
        """There was another answer, or none."""
        self._first = None

    @property
    def unbroken(self) -> bool:
        """Whether the latest answer was a refusal."""
        return self._first is not None

    def lasted(self, since: float) -> float:
        """Seconds of the run that lie behind `since`: 0 without one."""
        return 0.0 if self._first is None else max(0.0, self._last - max(self._first, since))
