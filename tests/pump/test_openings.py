"""How many calls may be under way without an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.errors import CloseReason
from proxy.pump.openings import ALL, LEAST, MOST, TURNS, OpeningWindow, OpeningWindows, UnderWay

pytestmark = pytest.mark.failure("21b-c")


class Peer:
    """What carries calls, and those who have asked it."""

    def __init__(self, way: int = 1) -> None:
        self.asked: list[Callable[[], None]] = []
        self.way, self.gone = way, False
        self.under_way = UnderWay(self)

    def ask(self, told: Callable[[], None]) -> None:
        if self.gone:
            told()
        else:
            self.asked.append(told)


class Call:
    """A call that is under way."""

    def __init__(self, session: Peer, left: bool | None = False) -> None:
        self.session, self.left, self.bytes_received = session, left, 0


def filled(window: OpeningWindow, peer: Peer, left: bool | None = False) -> list[Call]:
    calls = []
    while not window.full:
        calls.append(Call(peer, left))
        window.add(calls[-1], calls[-1].session.under_way)
    return calls


def test_callers_that_wait_have_the_whole_window() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    for _ in range(10):
        calls = filled(window, peer)
        assert len(calls) == MOST == peer.under_way.count
        for call in calls:
            window.answered(call)
    assert (window.size, window.burst, peer.under_way.count) == (MOST, MOST // TURNS, 0)


@pytest.mark.failure("21b-c")
@pytest.mark.parametrize(
    ("reason", "received", "left", "waited"),
    [
        (CloseReason.FINISHED, 1, None, True),
        (CloseReason.FINISHED, 1, True, False),
        (CloseReason.FINISHED, 0, None, False),
        (CloseReason.ABORTED, 1, None, False),
        (CloseReason.LINK_LOST, 1, None, None),
        (CloseReason.STOPPED, 0, None, None),
    ],
)
def test_whether_a_caller_had_left_may_be_known_at_the_end_only(
    reason: CloseReason, received: int, left: bool | None, waited: bool | None
) -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    window.size = before = MOST // 2
    for _ in range(2):
        call = Call(peer, None)
        window.add(call, call.session.under_way)
        window.answered(call)
        assert (window.size, window.calls) == (before, {}), "it is in nobody's way"
        call.left, call.bytes_received = left, received
        window.ended(call, reason)
        window.ended(call, reason)
        before = {True: before + 1, False: before // 2, None: before}[waited]
        assert (window.size, window.doubted) == (before, set())


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "ended before"])
def test_callers_that_close_at_once_have_little(answered: bool) -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    for _ in range(MOST):
        for call in filled(window, peer, left=True):
            if answered:
                window.answered(call)
            else:
                window.adapt(False)
                window.over(call)
        if not answered:
            peer.asked.pop()()
    assert (window.size, window.burst, peer.under_way.count) == (LEAST, 1, 0)
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
    window.over(calls[0])
    window.over(calls[1])
    assert len(window.calls) == len(calls)
    [told] = peer.asked
    told()
    assert len(window.calls) == 0
    assert peer.asked == [told]


@pytest.mark.parametrize("upstreams", [2, 5, 50])
def test_upstreams_that_take_all_they_may_leave_some_to_the_next(upstreams: int) -> None:
    windows, peer = OpeningWindows(), Peer()
    for number in range(upstreams):
        filled(windows.of(f"{number}"), peer)
        assert len(windows.of(f"{number}").calls) >= LEAST
    assert peer.under_way.count <= ALL + LEAST * upstreams
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
        window.add(call, call.session.under_way)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    window.when_room(lambda: told.append("and again"))
    assert (len(one.asked), len(other.asked)) == (1, 1), "once for each, however many wait"
    one.asked.pop()()
    assert told == ["room", "and again"]
    assert window.calls.keys().isdisjoint(mine)
    window.answered(mine[0])
    assert len(window.calls) == MOST // 2, "late, and not counted twice"
    filled(window, one)
    window.when_room(lambda: None)
    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_calls_that_lose_their_link_are_in_nobodys_way() -> None:
    windows, one, other = OpeningWindows(), Peer(), Peer()
    mine, theirs = Call(one), Call(other)
    windows.of("one").add(mine, one.under_way)
    windows.of("one").add(theirs, other.under_way)
    windows.of("another").add(Call(one), one.under_way)
    windows.link_lost(one)
    assert (one.under_way.count, other.under_way.count) == (0, 1)
    assert windows.of("one").calls.keys() == {theirs}
    windows.of("one").answered(mine)
    assert (one.under_way.count, other.under_way.count) == (0, 1)


def test_an_upstream_that_was_removed_and_comes_back() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    windows.keep({"another"})
    assert windows.of("one") is not window
    window = windows.of("one")
    call = Call(peer)
    window.add(call, call.session.under_way)
    windows.keep({"another"})
    assert windows.of("one") is window, "a call is in it"
    windows.link_lost(peer)
    assert peer.under_way.count == 0


def test_calls_that_came_after_the_question_do_not_keep_others_waiting() -> None:
    """Calls that waited for a link come into a window without asking whether there is room."""
    window, one, other = OpeningWindows().of("one"), Peer(), Peer()
    filled(window, one)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    for session in (one, other) * MOST:
        window.add(Call(session), session.under_way)
    one.asked.pop(0)()
    assert not told
    other.asked.pop(0)()
    one.asked.pop(0)()
    assert told == ["room"]
    assert not window.calls
    assert not one.asked
    assert not other.asked


def test_calls_that_ended_without_an_answer_leave_by_themselves() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    calls = [Call(peer) for _ in range(4)]
    for call in calls[:3]:
        window.add(call, call.session.under_way)
    window.over(calls[0])
    window.add(calls[3], calls[3].session.under_way)
    window.over(calls[3])
    peer.asked.pop(0)()
    assert window.calls.keys() == {calls[3]}, "it has ended after the question"
    peer.asked.pop(0)()
    assert peer.under_way.count == 0
    assert not peer.asked
    window.over(calls[0])
    assert not peer.asked, "nobody waits for that"


def test_calls_that_end_with_their_session_leave_with_it() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    calls = filled(window, peer)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    peer.gone = True
    peer.asked.pop()()
    for call in calls:
        window.over(call)
    assert told == ["room"]
    assert peer.under_way.count == 0


def test_a_silent_peer_holds_up_only_who_calls_it() -> None:
    windows, silent, other = OpeningWindows(), Peer(), Peer()
    for number in range(10):
        filled(windows.of(f"{number}"), silent)
    assert len(filled(windows.of("next"), other)) == MOST


@pytest.mark.parametrize("way", [1, 50])
def test_on_a_long_way_more_are_under_way(way: int) -> None:
    """As many a second: they stand before nobody while they travel."""
    window, peer = OpeningWindows().of("one"), Peer(way)
    calls = filled(window, peer)
    assert len(calls) == MOST * way
    for call in calls:
        window.answered(call)
    for _ in range(MOST):
        window.adapt(False)
    assert len(filled(window, peer)) == LEAST * way
