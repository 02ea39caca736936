"""How many handshakes may be under way, in all and from one source (sans-IO).

Nobody queues: who finds no place is told so and dials again. A queue would hold a descriptor for everybody in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import CloseReason, HandshakeError


class HandshakeLimiter:
    """Places for handshakes.

    Args:
        total: of all sources together; per_source: of one address. (Not of one network: peers may share it.)
    """

    def __init__(self, total: int, per_source: int) -> None:
        self._total, self._per_source = total, per_source
        self._taken: dict[str, int] = {}

    @contextmanager
    def take(self, source: str) -> Iterator[None]:
        """A place, for the time of the block. Raises HandshakeError if there is none."""
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
