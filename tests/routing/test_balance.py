"""Who gets the next stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.balance import WAITS, choose, waits


@dataclass(eq=False)
class Peer:
    name: str
    up: bool = True
    streams: int = 0
    idle: bool = False
    last_error: str | None = None
    invited: int = 0

    def invite(self) -> None:
        self.invited += 1


def drawn(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def never() -> float:
    raise AssertionError("there is nothing to choose")


def test_with_one_host_nothing_is_drawn() -> None:
    peer = Peer("a")
    assert choose([peer], never) is peer
    assert choose([peer], never, {"a"}) is peer, "the only one is never ejected"
    assert choose([Peer("a", up=False)], never) is None
    assert choose([], never) is None


def test_the_one_with_fewer_streams_of_two() -> None:
    peers = [Peer("a", streams=5), Peer("b", streams=1), Peer("c", streams=3)]
    picks = [((0.0, 0.0), "b"), ((0.0, 0.99), "c"), ((0.5, 0.0), "b"), ((0.99, 0.0), "c"), ((0.99, 0.99), "b")]
    for numbers, name in picks:
        chosen = choose(peers, drawn(*numbers))
        assert chosen is not None
        assert chosen.name == name


def test_all_hosts_get_their_share() -> None:
    peers, random, taken = [Peer(f"{number}") for number in range(50)], Random(1).random, Counter[str]()
    for _ in range(5000):
        chosen = choose(peers, random)
        assert chosen is not None
        chosen.streams += 1
        taken[chosen.name] += 1
    assert min(taken.values()) > 90
    assert max(taken.values()) < 110


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (0.99, 0.0)])
def test_who_has_no_link_or_is_ejected_is_passed_over(numbers: tuple[float, float]) -> None:
    good = Peer("good", streams=999)
    assert choose([Peer("down", up=False), good], drawn(*numbers)) is good
    assert choose([good, Peer("bad")], drawn(*numbers), {"bad"}) is good
    bad = [Peer(f"bad{number}") for number in range(9)]
    assert choose([*bad, good], drawn(*numbers), {each.name for each in bad}) is good


def test_an_idle_host_is_invited_when_the_other_is_busy() -> None:
    idle, busy = Peer("idle", up=False, idle=True), Peer("busy")
    assert choose([idle, busy], drawn(0, 0)) is busy
    assert not idle.invited
    busy.streams = 1
    assert choose([idle, busy], drawn(0, 0)) is busy
    assert idle.invited
    idle.invited = 0
    assert choose([idle, busy], drawn(0, 0), {"idle"}) is busy
    assert not idle.invited


def test_nobody_is_left_but_the_ejected() -> None:
    peers = [Peer("a"), Peer("b")]
    assert choose(peers, drawn(0, 0), {"a", "b"}) in peers
    peers[1].up = False
    assert choose(peers, drawn(0, 0), {"a"}) is None, "b may have a link soon"
    peers[1].last_error = "refused"
    assert choose(peers, drawn(0, 0), {"a"}) is peers[0]
    peers[0].up = False
    assert choose(peers, drawn(0, 0), {"a"}) is None


def test_where_to_wait() -> None:
    few = [Peer("a", up=False), Peer("b", up=False, last_error="x")]
    assert waits(few, never) == few
    many = [Peer(f"{number}", up=False, last_error="x" if number % 2 else None) for number in range(10)]
    found = waits(many, lambda: 0.35, {"4"})
    assert [each.name for each in found] == ["6", "8", "0", "2", "3", "4", "5", "7"]
    assert len(found) == WAITS


numbers = st.floats(0, 1, exclude_max=True)
peer = st.builds(Peer, st.text("abcdefgh", min_size=1, max_size=2), st.booleans(), st.integers(0, 3), st.booleans())


@given(st.lists(peer, unique_by=lambda each: each.name), st.sets(st.text("abcdefgh", max_size=2)), numbers, numbers)
def test_whoever_can_take_it_takes_it(peers: list[Peer], ejected: set[str], one: float, other: float) -> None:
    chosen = choose(peers, drawn(one, other), ejected)
    best = [each for each in peers if each.up and each.name not in ejected]
    if len(peers) > 1 and best:
        assert chosen in best
    assert chosen is None or chosen.up
    if chosen is None:
        assert not best
    found = waits(peers, lambda: one, ejected)
    assert len(found) == min(len(peers), WAITS) == len(set(map(id, found)))
