"""How many calls may be under way without an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.pump.openings import ALL, LEAST, MOST, TURNS, OpeningWindow, OpeningWindows

pytestmark = pytest.mark.failure("21b-c")


class Peer:
    """What carries calls, and those who have asked it."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def ask(self, told: Callable[[], None]) -> None:
        self.asked.append(told)


class Call:
    """A call that is under way."""

    def __init__(self, session: Peer, eof: bool = False) -> None:
        self.session, self.eof = session, eof


def filled(window: OpeningWindow, peer: Peer, eof: bool = False) -> list[Call]:
    calls = []
    while not window.full:
        calls.append(Call(peer, eof))
        window.add(calls[-1])
    return calls


def test_callers_that_wait_have_the_whole_window() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    for _ in range(10):
        calls = filled(window, peer)
        assert len(calls) == MOST == windows.count
        for call in calls:
            window.answered(call)
    assert (window.size, window.burst, windows.count) == (MOST, MOST // TURNS, 0)


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "ended before"])
def test_callers_that_close_at_once_have_little(answered: bool) -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    for _ in range(MOST):
        for call in filled(window, peer, eof=True):
            if answered:
                window.answered(call)
            else:
                window.adapt(False)
                window.drop(call)
    assert (window.size, window.burst, windows.count) == (LEAST, 1, 0)
    for _ in range(MOST):
        window.answered(Call(peer))
    assert window.size == MOST, "others come after them"


def test_now_and_then_one_does_not_wait() -> None:
    window = OpeningWindows().of("one")
    for number in range(1000):
        window.adapt(number % 20 > 0)
    assert window.size >= MOST // 4


def test_one_that_closes_early_still_stands_in_the_way() -> None:
    window, peer = OpeningWindows().of("one"), Peer()
    calls = filled(window, peer)
    window.adapt(False)
    assert window.full
    assert len(window.calls) == len(calls)


@pytest.mark.parametrize("upstreams", [2, 5, 50])
def test_upstreams_that_take_all_they_may_leave_some_to_the_next(upstreams: int) -> None:
    windows, peer = OpeningWindows(), Peer()
    for number in range(upstreams):
        filled(windows.of(f"{number}"), peer)
        assert len(windows.of(f"{number}").calls) >= LEAST
    assert windows.count <= ALL + LEAST * upstreams
    assert len(filled(windows.of("next"), peer)) >= LEAST


def test_there_is_room_when_half_is_free() -> None:
    window, peer = OpeningWindows().of("one"), Peer()
    calls = filled(window, peer)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    for call in calls[: MOST // 2 - 1]:
        window.answered(call)
    assert not told
    window.answered(calls[MOST // 2])
    assert told == ["room"]
    window.answered(calls[-1])
    assert told == ["room"], "once"


def test_calls_that_a_service_lets_wait_are_in_nobodys_way() -> None:
    """The peer has handled them: it says so when it is asked."""
    window, one, other = OpeningWindows().of("one"), Peer(), Peer()
    mine = [Call(one) for _ in range(MOST // 2)]
    for call in [*mine, *(Call(other) for _ in range(MOST // 2))]:
        window.add(call)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    window.when_room(lambda: told.append("and again"))
    assert (len(one.asked), len(other.asked)) == (1, 1), "once for each, however many wait"
    one.asked.pop()()
    assert told == ["room", "and again"]
    assert window.calls.isdisjoint(mine)
    window.answered(mine[0])
    assert len(window.calls) == MOST // 2, "late, and not counted twice"
    filled(window, one)
    window.when_room(lambda: None)
    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_calls_that_lose_their_link_are_in_nobodys_way() -> None:
    windows, one, other = OpeningWindows(), Peer(), Peer()
    mine, theirs = Call(one), Call(other)
    windows.of("one").add(mine)
    windows.of("one").add(theirs)
    windows.of("another").add(Call(one))
    windows.link_lost(one)
    assert windows.count == 1
    assert windows.of("one").calls == {theirs}
    windows.of("one").answered(mine)
    assert windows.count == 1


def test_an_upstream_that_was_removed_and_comes_back() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    call = Call(peer)
    window.add(call)
    windows.keep({"another"})
    assert windows.of("one") is not window
    window.drop(call)
    assert windows.count == 0
    assert windows.of("one") is windows.of("one")
