"""The part of the recent past in which something was the case (sans-IO)."""

from __future__ import annotations

from math import exp


class DecayingAverage:
    """An average over time that forgets exponentially. It costs nothing while nothing changes.

    Args:
        memory: seconds after which what was counts for a third (1/e).
        now: seconds of any clock; the thing is not the case yet.
    """

    __slots__ = ("_at", "_memory", "_on", "_value")

    def __init__(self, memory: float, now: float) -> None:
        self._memory = memory
        self._value, self._on, self._at = 0.0, False, now

    def set(self, on: bool, now: float) -> None:
        """From now on it is the case, or is not."""
        self._value, self._on, self._at = self.value(now), on, now

    def value(self, now: float) -> float:
        """0: never of late; 1: all the time."""
        return self._on + (self._value - self._on) * exp((self._at - now) / self._memory)
