"""``limits.memory`` is for all processes of a host together: the one that accepts and those that it has taken over from
(sans-IO). Each keeps what it uses, and what nobody uses they share equally.

The one that accepts divides. The others tell it once a second what they use, and are told what they may use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from proxy.config.memory import LEAST
from proxy.pump.budget import MemoryBudget

LEAST_PART = 8
"""Each has at least an eighth of the whole, or `LEAST` if that is less."""


class Share(NamedTuple):
    """Bytes that one process may hold, in all and for each peer."""

    limit: int
    per_peer: int


class MemoryShares:
    """What this process may hold, and, while it is the one that accepts, what the others may.

    Args:
        budget: gets what this process may hold.
        kept: returns the bytes that sessions without a link keep; they have the same limit, beside the budget's bytes.
        total, per_peer: what is configured.
    """

    def __init__(self, budget: MemoryBudget, kept: Callable[[], int], total: int, per_peer: int) -> None:
        self._budget, self._kept = budget, kept
        self._total, self._per_peer = total, per_peer
        self._others: dict[str, int | None] = {}

    @property
    def use(self) -> int:
        """Bytes of its share that this process uses."""
        return max(self._budget.used, self._kept())

    def configure(self, total: int, per_peer: int) -> None:
        """The configuration says something else from now on."""
        self._total, self._per_peer = total, per_peer
        self.divide()

    def heard(self, others: Mapping[str, int | None]) -> None:
        """These are the other processes, and the bytes that each has said that it uses; None: it has not said yet."""
        self._others = dict(others)

    def divide(self) -> dict[str, Share]:
        """Take this process's own share. Returns those of the others, but for such as have not said what they use: they
        go on as before, for a moment, and are taken to need no more than an equal part.
        """
        uses = [self.use, *(use for use in self._others.values() if use is not None)]
        unknown = len(self._others) + 1 - len(uses)
        whole = self._total * len(uses) // (len(uses) + unknown)
        free = max(0, whole - sum(uses)) // len(uses)
        self.told(self._share(self.use + free))
        return {name: self._share(use + free) for name, use in self._others.items() if use is not None}

    def told(self, share: Share) -> None:
        """This process may hold so much from now on. What it holds already it may keep."""
        self._budget.limit, self._budget.per_peer = share

    def _share(self, size: int) -> Share:
        """No more than there is, and never next to nothing, even if others use it all: their use falls as they end."""
        size = min(self._total, max(size, min(LEAST, self._total // LEAST_PART)))
        return Share(size, self._per_peer * size // self._total)
