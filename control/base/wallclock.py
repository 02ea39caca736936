"""The wall clock does not only pass: it is set, and when a machine wakes up it has gone on without any program. Whoever
waits by the steady clock for a time of the wall clock, such as the end of a certificate, looks every `LOOK` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["LOOK", "ClockWatch"]

LOOK = 5.0
"""Seconds between looks."""
TOLERANCE = 1.0
"""Seconds between two looks that are no jump: a clock that is being corrected gains or loses 2.5 ms in that time
(adjtimex(2): 500 ppm), and the two clocks are not read at the same moment."""


class ClockWatch:
    """Notices jumps.

    Args:
        now: the wall clock, seconds since 1970; steady: a clock that is never set, and stands still while the machine
            sleeps (CLOCK_MONOTONIC), seconds.
    """

    def __init__(self, now: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._now, self._steady = now, steady
        self._difference = now() - steady()

    def jump(self) -> float:
        """Seconds by which the wall clock has jumped since the last call; negative: it was set back; 0: it has not."""
        before, self._difference = self._difference, self._now() - self._steady()
        jump = self._difference - before
        return jump if abs(jump) > TOLERANCE else 0.0
