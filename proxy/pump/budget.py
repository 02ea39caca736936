"""The memory budget: how many bytes may be held for sockets that do not take them, in all and for each peer."""

from __future__ import annotations


class MemoryBudget:
    """Counts buffered bytes. Whoever takes gives back, exactly once.

    Args:
        limit: bytes; per_peer: bytes of it that one peer's streams may hold (all, unless given).

    Attributes:
        accounts: by peer; those that ever took anything.
    """

    __slots__ = ("accounts", "limit", "per_peer", "used")

    def __init__(self, limit: int, per_peer: int | None = None) -> None:
        self.limit = limit
        self.per_peer = limit if per_peer is None else per_peer
        self.used = 0
        self.accounts: dict[str, PeerBudget] = {}

    def take(self, size: int) -> bool:
        """Account for `size` bytes more; False, and nothing is taken, if that would exceed the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """`size` bytes have left the proxy or were dropped."""
        self.used -= size

    def account(self, peer: str) -> PeerBudget:
        """The account that all links of a peer share, and that outlives them: bytes are given back late."""
        account = self.accounts.get(peer)
        if account is None:
            account = self.accounts[peer] = PeerBudget(self)
        return account

    def forget(self, peer: str) -> None:
        """The peer is none any more; bytes that are still to be given back stay accounted for."""
        if peer in self.accounts and not self.accounts[peer].used:
            del self.accounts[peer]


class PeerBudget:
    """A peer's part of the budget: what is taken here is taken there as well."""

    __slots__ = ("_budget", "used")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.used = 0

    def take(self, size: int) -> bool:
        """As `MemoryBudget.take`, and within `MemoryBudget.per_peer`."""
        if self.used + size > self._budget.per_peer or not self._budget.take(size):
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """As `MemoryBudget.give`."""
        self.used -= size
        self._budget.give(size)
