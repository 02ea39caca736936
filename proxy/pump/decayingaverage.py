"""The fraction of recent time in which a condition held (sans-IO)."""

from __future__ import annotations

from math import exp


class DecayingAverage:
    """A time average of a condition with exponential decay. It is computed only when asked or changed.

    Args:
        memory: time constant, seconds: what was that long ago counts for a third (1/e).
        now: seconds of any clock; the condition does not hold at first.
    """

    __slots__ = ("_at", "_memory", "_on", "_value")

    def __init__(self, memory: float, now: float) -> None:
        self._memory = memory
        self._value, self._on, self._at = 0.0, False, now

    def set(self, on: bool, now: float) -> None:
        """From `now` on the condition holds, or does not."""
        self._value, self._on, self._at = self.value(now), on, now

    def value(self, now: float) -> float:
        """0: it did not hold of late; 1: it held all the time."""
        return self._on + (self._value - self._on) * exp((self._at - now) / self._memory)
