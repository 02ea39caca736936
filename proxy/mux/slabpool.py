"""The slabs of all sessions (`replay.Slab`)."""

from __future__ import annotations

from collections.abc import Callable

from proxy.mux.replay import Slab
from proxy.mux.sizes import SLAB_SIZE


class SlabPool:
    """Recycles slabs among all sessions of a proxy. The slab given back last is taken first: it may still be in the
    processor's cache.

    Args:
        keep: free slabs that are kept; more are left to the allocator.

    Attributes:
        left: called once when a slab is left to the allocator.
    """

    def __init__(self, keep: int = 8) -> None:
        self.left: Callable[[], None] | None = None
        self._free: list[Slab] = []
        self._keep = keep
        self.in_use = 0

    def take(self) -> Slab:
        """See `replay.Slabs`."""
        self.in_use += 1
        return self._free.pop() if self._free else Slab()

    def give(self, slab: Slab) -> None:
        """See `replay.Slabs`."""
        self.in_use -= 1
        if len(self._free) < self._keep:
            self._free.append(slab)
        elif self.left is not None:
            left, self.left = self.left, None
            left()

    @property
    def bytes_held(self) -> int:
        """Memory held by slabs, in use or free."""
        return (self.in_use + len(self._free)) * SLAB_SIZE
