"""A token bucket: so many a second, and so many at once after a pause (sans-IO)."""

from __future__ import annotations


class Bucket:
    """Full at first.

    Args:
        rate: tokens that come a second; burst: tokens that it holds at most.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether there was a token to take. `now` is seconds by any clock that does not go backwards."""
        tokens = self._tokens + (now - self._at) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        self._at = now
        self._tokens = tokens - 1.0 if tokens >= 1.0 else tokens
        return tokens >= 1.0
