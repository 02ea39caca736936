"""How many handshakes may be under way, in all and from one source (sans-IO).

Nothing queues: a queue would hold a descriptor for each dialler in it. When all places are taken, a handshake in which
nothing has been said yet gives its place up: whoever means it sends HELLO with the connection, so that such a one is
slow or silent. Otherwise the oldest goes, if it had time enough: a word alone keeps no place. A source where a peer is
known to be goes before others. Who still finds no place is refused and dials again later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from proxy.errors import CloseReason, HandshakeError

ENOUGH = 1.0
"""Seconds in which an honest handshake is over: three round trips with TLS, and the time for a certificate."""


class NoPlace(HandshakeError):
    """All places are taken, by those who do not have to give way."""

    def __init__(self, text: str) -> None:
        super().__init__(text, CloseReason.OVERLOADED)


class HandshakePlace:
    """The place of one handshake, from `HandshakeLimiter.take`.

    Attributes:
        heard: the dialler has said something; whoever reads from it sets this.
        since: when it was taken, seconds.
        expected: the source is one where a peer is known to be.
        evict: called when the place is given to somebody else: the handshake ends at once.
    """

    def __init__(self, source: str, since: float, expected: bool, evict: Callable[[], None]) -> None:
        self.source, self.since, self.expected, self.evict = source, since, expected, evict
        self.heard = False


class HandshakeLimiter:
    """Gives the places to the handshakes under way.

    Args:
        total: most from all sources together; per_source: most from one address. (Not from one network: all peers may
            be in the same one.)
    """

    def __init__(self, total: int, per_source: int) -> None:
        self._total, self._per_source = total, per_source
        self._taken: dict[HandshakePlace, None] = {}  # the oldest first

    @contextmanager
    def take(
        self, source: str, evict: Callable[[], None], now: float, *, expected: bool = False
    ) -> Iterator[HandshakePlace]:
        """Hold a place during the block. Arguments as `HandshakePlace`; `now` is of a clock that does not go back.
        Raises NoPlace if there is none.
        """
        place = HandshakePlace(source, now, expected, evict)
        same = [other for other in self._taken if other.source == source]
        if len(same) >= self._per_source:
            self._make_room(same, place, f"{len(same)} handshakes from this address are under way")
        if len(self._taken) >= self._total:
            self._make_room(self._taken, place, f"{self._total} handshakes are under way")
        self._taken[place] = None
        try:
            yield place
        finally:
            self._taken.pop(place, None)

    def _make_room(self, among: Iterable[HandshakePlace], place: HandshakePlace, full: str) -> None:
        """Evict the one that has been silent longest, else the oldest that had ENOUGH; an unexpected one if there is
        any, and of the source that has most places. Raises NoPlace if nobody has to give way to this place.
        """
        below = [other for other in among if other.expected <= place.expected]
        unheard = [other for other in below if not other.heard]
        unexpected = [other for other in below if other.expected < place.expected]
        slow = [other for other in below if place.since - other.since > ENOUGH]
        held = Counter(other.source for other in self._taken)
        going = min(
            unheard or unexpected or slow, key=lambda other: (other.expected, -held[other.source]), default=None
        )
        if going is None:
            raise NoPlace(full)
        del self._taken[going]
        going.evict()
