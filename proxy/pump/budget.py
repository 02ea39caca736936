"""The global memory budget: how many bytes all lanes together may hold for sockets that do not take them."""

from __future__ import annotations


class Budget:
    """Counts buffered bytes. Whoever takes gives back, exactly once.

    Args:
        limit: bytes.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Account for `size` bytes more; False, and nothing is taken, if that would exceed the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """`size` bytes have left the proxy or were dropped."""
        self.used -= size
