"""How many series of metrics may bear the name of a service or a peer (``telemetry.max_series``). Whoever comes when
there is no room for one more is counted as OTHER, together with all others, and stays so: a number that once was part
of a sum must not leave it, as counters never decrease.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from time import monotonic
from typing import Generic, TypeVar

__all__ = ["FORGET", "Named", "SeriesBudget"]

FORGET = 3600.0
"""Seconds that the numbers of a service or peer outlive its place in the map: a scraper may not have read them yet, and
who comes back goes on."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SeriesBudget:
    """Args:
    limit: series.

    Attributes:
        used: how many have been taken.
    """

    def __init__(self, limit: int = 5000) -> None:
        self.limit, self.used = limit, 0

    def take(self, count: int) -> bool:
        """Whether there was room for so many."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """They are not there any more."""
        self.used -= count


class Named(Generic[K, V]):
    """What is counted by name, made on first use.

    Args:
        make: makes one; cost: the series of each, about; other: the name for all that find no room.

    Attributes:
        all: by name.
    """

    def __init__(
        self,
        budget: SeriesBudget,
        make: Callable[[], V],
        cost: int,
        other: Callable[[K], K],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._budget, self._make, self._cost, self._other, self._clock = budget, make, cost, other, clock
        self.all: dict[K, V] = {}
        self._folded: dict[K, None] = {}
        self._gone: dict[K, float] = {}

    def __call__(self, name: K) -> V:
        """What counts for that name."""
        found = self.all.get(name)
        if found is not None:
            return found
        name = self.label(name)
        found = self.all.get(name)
        if found is None:
            found = self.all[name] = self._make()
        return found

    def label(self, name: K) -> K:
        """The name under which it is counted. It has that from now on."""
        if name in self.all:
            return name
        other = self._other(name)
        if name == other or name in self._folded:
            return other
        if not self._budget.take(self._cost):
            if len(self._folded) < self._budget.limit:  # beyond, who comes back later may get a name of its own
                self._folded[name] = None
            return other
        self.all[name] = self._make()
        return name

    def forget(self, known: Callable[[K], bool]) -> Iterator[None]:
        """Drop what has not been `known` for FORGET, one after the other. Who keeps one of those at hand counts for
        nobody: so nobody may keep it beyond that.
        """
        now, gone = self._clock(), {}
        for name in [*self.all, *self._folded]:
            if name != self._other(name) and not known(name):
                gone[name] = self._gone.get(name, now)
                if now - gone[name] >= FORGET:
                    del gone[name]
                    self._folded.pop(name, None)
                    if self.all.pop(name, None) is not None:
                        self._budget.give(self._cost)
            yield
        self._gone = gone


def everybody(names: Collection[str], other: str) -> Callable[[str], bool]:
    """Whether a name is one of these."""
    known = {other, "", *names}
    return lambda name: name in known
