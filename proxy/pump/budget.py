"""The memory budget: how many bytes may be buffered for sockets that are full, in all and for each peer."""

from __future__ import annotations

from collections.abc import Callable


class MemoryBudget:
    """Counts buffered bytes. Whoever takes bytes gives back as many, exactly once.

    Args:
        limit: bytes, in all; per_peer: bytes of it that one peer's streams may take (all, unless given).
        send_buffer: bytes that the kernel shall hold at most of what is sent to a local socket; 0: as it likes. They
            are not counted here, but they are ours.

    Attributes:
        link_buffer: the same for a link, in each direction.
        accounts: by peer; one for each peer that ever had a session, until `forget`.
    """

    __slots__ = ("_floor", "_shrunk", "_worth", "accounts", "limit", "link_buffer", "per_peer", "send_buffer", "used")

    def __init__(self, limit: int, per_peer: int | None = None, send_buffer: int = 0) -> None:
        self.limit = limit
        self.per_peer = limit if per_peer is None else per_peer
        self.send_buffer, self.link_buffer = send_buffer, 0
        self.used = 0
        self.accounts: dict[str, PeerBudget] = {}
        self._floor = self._worth = 0
        self._shrunk: Callable[[], None] | None = None

    def take(self, size: int) -> bool:
        """Count `size` more bytes. False, and nothing is counted, if that would exceed the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        if self.used - self._worth > self._floor:
            self._floor = self.used - self._worth
        return True

    def give(self, size: int) -> None:
        """Give back `size` bytes, which were sent or dropped."""
        self.used -= size
        if self._shrunk is not None and self.used <= self._floor:
            shrunk, self._shrunk = self._shrunk, None
            shrunk()

    def watch(self, worth: int, shrunk: Callable[[], None]) -> None:
        """Call `shrunk` once, when `worth` bytes less are used than at the most since this call."""
        self._worth, self._floor, self._shrunk = worth, self.used - worth, shrunk

    def account(self, peer: str) -> PeerBudget:
        """The account that all sessions of a peer share. It outlives them, as their bytes may be given back later."""
        account = self.accounts.get(peer)
        if account is None:
            account = self.accounts[peer] = PeerBudget(self)
        return account

    def forget(self, peer: str) -> None:
        """The peer was removed: drop its account, unless bytes are still to be given back to it."""
        if peer in self.accounts and not self.accounts[peer].used:
            del self.accounts[peer]


class PeerBudget:
    """One peer's account. Bytes taken from it are taken from the `MemoryBudget` too."""

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
