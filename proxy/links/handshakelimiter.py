"""How many handshakes may be under way, in all and from one source (sans-IO).

Nothing queues: a dialler beyond the limit is refused and dials again later. A queue would hold a descriptor for each
dialler in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import CloseReason, HandshakeError


class HandshakeLimiter:
    """Counts the handshakes under way.

    Args:
        total: most from all sources together; per_source: most from one address. (Not from one network: all peers may
            be in the same one.)
    """

    def __init__(self, total: int, per_source: int) -> None:
        self._total, self._per_source = total, per_source
        self._taken: dict[str, int] = {}

    @contextmanager
    def take(self, source: str) -> Iterator[None]:
        """Count one handshake during the block. Raises HandshakeError if that would exceed a limit."""
        taken = self._taken.get(source, 0)
        if taken >= self._per_source:
            raise HandshakeError(f"{taken} handshakes from this address are under way", CloseReason.OVERLOADED)
        if sum(self._taken.values()) >= self._total:
            raise HandshakeError(f"{self._total} handshakes are under way", CloseReason.OVERLOADED)
        self._taken[source] = taken + 1
        try:
            yield
        finally:
            self._taken[source] -= 1
            if not self._taken[source]:
                del self._taken[source]
