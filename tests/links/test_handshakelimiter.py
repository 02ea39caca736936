"""Places for handshakes: each source has some, all together have more, and who says nothing gives way."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from proxy.errors import CloseReason, HandshakeError
from proxy.links.handshakelimiter import ENOUGH, HandshakeLimiter, HandshakePlace

pytestmark = pytest.mark.failure("21b-a")


class Taken:
    """Places that are held, and the numbers of those that were evicted."""

    def __init__(self, stack: ExitStack, total: int = 4, per_source: int = 3) -> None:
        self.evicted: list[int] = []
        self.now = 100.0
        self.places: list[HandshakePlace] = []
        self._limiter, self._stack = HandshakeLimiter(total, per_source), stack

    def take(self, source: str, *, heard: bool = False, expected: bool = False) -> HandshakePlace:
        number = len(self.places)
        held = self._limiter.take(source, lambda: self.evicted.append(number), self.now, expected=expected)
        place = self._stack.enter_context(held)
        place.heard = heard
        self.places.append(place)
        return place

    def full(self, source: str, complaint: str, *, expected: bool = False) -> None:
        with pytest.raises(HandshakeError, match=complaint) as caught:
            self.take(source, expected=expected)
        assert caught.value.reason is CloseReason.OVERLOADED


def test_the_one_that_is_silent_longest_goes() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        taken.take("10.0.0.1", heard=True)
        for source in ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"):
            taken.take(source)
        assert taken.evicted == [1, 2]


def test_at_its_own_limit_a_source_displaces_itself() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        taken.take("10.0.0.2")
        for _ in range(6):
            taken.take("10.0.0.1")
        assert taken.evicted == [1, 2, 3]


def test_who_has_said_something_stays() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        for _ in range(3):
            taken.take("10.0.0.1", heard=True)
        taken.full("10.0.0.1", "^3 handshakes from this address are under way$")
        taken.take("10.0.0.2", heard=True)
        taken.full("10.0.0.3", "^4 handshakes are under way$")
        assert taken.evicted == []


def test_a_configured_peer_goes_before_others() -> None:
    """The silent ones give way first, then the oldest of the others; never another configured peer that has spoken."""
    with ExitStack() as stack:
        taken = Taken(stack)
        taken.take("10.0.0.1", heard=True)
        taken.take("10.0.0.2", heard=True)
        taken.take("10.0.0.3")
        for source in ("10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"):
            taken.take(source, heard=True, expected=True)
        assert taken.evicted == [2, 0, 1]
        taken.full("10.0.1.5", "^4 handshakes are under way$", expected=True)


def test_a_stranger_displaces_no_configured_peer() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        for source in ("10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"):
            taken.take(source, expected=True)
        taken.full("10.0.0.1", "^4 handshakes are under way$")
        taken.take("10.0.1.5", expected=True)
        assert taken.evicted == [0]


def test_a_place_is_free_again_however_its_handshake_ended() -> None:
    limiter = HandshakeLimiter(total=1, per_source=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="a bug"), limiter.take("10.0.0.1", lambda: None, 0.0):
            raise ValueError("a bug")
    with limiter.take("10.0.0.2", lambda: None, 0.0) as first:
        with limiter.take("10.0.0.3", lambda: None, 0.0):
            pass
        assert not first.heard
    assert limiter._taken == {}, "nothing is remembered of a source that is gone"


def test_a_word_alone_keeps_no_place() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        for number in range(4):
            taken.take(f"10.0.0.{number % 2}", heard=True)
            taken.now += 0.1
        taken.full("10.0.0.9", "^4 handshakes are under way$")
        taken.now += ENOUGH
        taken.take("10.0.0.9", heard=True)
        taken.take("10.0.0.9")
        assert taken.evicted == [0, 1], "the oldest first"
        taken.take("10.0.0.8")
        assert taken.evicted == [0, 1, 5], "and who has said nothing before"


def test_a_peer_that_is_slow_gives_way_to_peers_only() -> None:
    with ExitStack() as stack:
        taken = Taken(stack)
        for number in range(4):
            taken.take(f"10.0.0.{number}", heard=True, expected=True)
        taken.now += 2 * ENOUGH
        taken.full("10.0.0.9", "^4 handshakes are under way$")
        taken.take("10.0.0.7", expected=True)
        assert taken.evicted == [0]


@pytest.mark.parametrize("heard", [False, True])
def test_who_has_most_places_gives_way_first(heard: bool) -> None:
    """Who comes again and again pushes nobody out who is only a little slow."""
    with ExitStack() as stack:
        taken = Taken(stack)
        taken.take("10.0.0.1", heard=heard)
        for _ in range(3):
            taken.take("10.0.0.2", heard=heard)
        taken.now += 2 * ENOUGH
        for source in ("10.0.0.3", "10.0.0.4"):
            taken.take(source, heard=heard)
        assert taken.evicted == [1, 2]
