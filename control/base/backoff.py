"""How long to wait before the next dial after one that failed: exponential backoff with full jitter."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CEILING", "FACTOR", "START", "Backoff"]

START = 0.1
"""Seconds; the first delay lies below it. A host of the same network refuses or answers within a millisecond, and a
proxy that was restarted is back within a second, so gRPC's 1 s, made for paths across the internet, would be most of
such an outage."""

FACTOR = 2.0
"""Six failures lead from START to CEILING, in some three seconds on average. (gRPC: 1.6)"""

CEILING = 5.0
"""Seconds; no delay is longer. A dial costs one small packet per peer, so staying away for gRPC's 120 s when the peer
is back would save nothing, and the hosts that come back together still spread over 5 s."""


class Backoff:
    """Delays between dials to one peer: each is drawn evenly from 0 to a window that grows with each failure.

    This "full jitter" takes the fewest calls when many compete (AWS Architecture Blog, "Exponential Backoff And
    Jitter", 2015): after a switch comes back, every host dials every other one. gRPC (doc/connection-backoff.md: 1 s,
    factor 1.6, at most 120 s, jitter 20 %) spreads far less. A delay may come out near 0, but no busy loop follows,
    because the window goes on growing.

    Args:
        random: returns numbers evenly spread over [0, 1), as random.random does.
        start, factor, ceiling: first window in seconds, its growth, its limit in seconds.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        start: float = START,
        factor: float = FACTOR,
        ceiling: float = CEILING,
    ) -> None:
        if not (0 < start <= ceiling and factor >= 1):
            raise ValueError(f"start {start}, factor {factor}, ceiling {ceiling}")
        self._random = random
        self._start, self._factor, self._ceiling = start, factor, ceiling
        self._window = start

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        delay = self._random() * self._window
        # Capped before it grows again: a peer that is down for a year must not overflow a float.
        self._window = min(self._window * self._factor, self._ceiling)
        return delay

    def reset(self) -> None:
        """The peer was reached: the next failure starts afresh."""
        self._window = self._start
