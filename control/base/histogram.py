"""How many of something took how long: plain numbers, added to where things happen and read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Args:
        bounds: the upper bounds of the buckets, which rise; each belongs to its bucket. One more takes what is above.

    Attributes:
        bounds: as given.
        counts: of each bucket, and of the one above; total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Count a value, which stands for `weight` of them."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)
