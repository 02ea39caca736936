"""A token bucket: so many a second, and so many at once after a pause (sans-IO).

Kept as the time at which it is full again, which each token puts off (the "generic cell rate algorithm", ITU-T I.371):
one number to look at, and no more than that to write.
"""

from __future__ import annotations

_SLACK = 1e-7
"""Tokens."""


class TokenBucket:
    """Full at first.

    Args:
        rate: tokens that come a second; burst: tokens that it holds at most.
    """

    __slots__ = ("_full_at", "_latest", "_token")

    def __init__(self, rate: float, burst: float) -> None:
        self._token = 1 / rate
        # Sums of floats are off by a little, which must not cost the last token of a burst.
        self._latest = (burst - 1 + _SLACK) / rate
        self._full_at = 0.0

    def take(self, now: float) -> bool:
        """Whether there was a token to take. `now` is seconds by any clock that does not go backwards."""
        full_at = self._full_at
        if full_at < now:
            full_at = now
        elif full_at - now > self._latest:
            return False
        self._full_at = full_at + self._token
        return True

    def wait(self, now: float) -> float:
        """Seconds until there is a token to take; 0: there is one."""
        return max(0.0, self._full_at - now - self._latest)

    def is_full(self, now: float) -> bool:
        """Whether it is as it was at first."""
        return self._full_at <= now
