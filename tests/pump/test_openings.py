"""How many calls may be under way without an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.errors import CloseReason
from proxy.pump.opening import ALL, LEAST, MOST, TURNS
from proxy.pump.openings import Batch, OpeningWindow, UnderWay
from proxy.pump.openingwindows import OpeningWindows

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
    """A call, which comes under way when it is made."""

    def __init__(self, window: OpeningWindow, session: Peer, has_left: bool | None = False) -> None:
        self.window, self.has_left, self.bytes_received = window, has_left, 0
        self.batch: Batch | None = window.add(session.under_way)

    def left(self) -> bool | None:
        return self.has_left

    def leave(self) -> None:
        batch, self.batch = self.batch, None
        if batch is not None:
            self.window.drop(batch)

    def answered(self) -> None:
        self.window.answered(self, self.has_left)
        self.leave()

    def over(self) -> None:
        self.window.over(self.batch)


def filled(window: OpeningWindow, peer: Peer, left: bool | None = False) -> list[Call]:
    calls = []
    while not window.is_full():
        calls.append(Call(window, peer, left))
    return calls


def test_callers_that_wait_have_the_whole_window() -> None:
    window, peer = OpeningWindow(), Peer()
    for _ in range(10):
        calls = filled(window, peer)
        assert len(calls) == MOST == peer.under_way.count
        for call in calls:
            call.answered()
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
    window, peer = OpeningWindow(), Peer()
    window.size = before = MOST // 2
    for _ in range(2):
        call = Call(window, peer, None)
        call.answered()
        assert (window.size, window.count) == (before, 0), "it is in nobody's way"
        call.has_left, call.bytes_received = left, received
        window.ended(call, reason)
        window.ended(call, reason)
        before = {True: before + 1, False: before // 2, None: before}[waited]
        assert (window.size, window.doubted) == (before, set())


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "ended before"])
def test_callers_that_close_at_once_have_little(answered: bool) -> None:
    window, peer = OpeningWindow(), Peer()
    for _ in range(MOST):
        for call in filled(window, peer, left=True):
            if answered:
                call.answered()
            else:
                window.adapt(False)
                call.over()
        if not answered:
            peer.asked.pop()()
    assert (window.size, window.burst, peer.under_way.count) == (LEAST, 1, 0)
    for _ in range(MOST):
        Call(window, peer).answered()
    assert window.size == MOST, "others come after them"


def test_now_and_then_one_does_not_wait() -> None:
    window = OpeningWindow()
    for number in range(1000):
        window.adapt(number % 20 > 0)
    assert window.size >= MOST // 4


def test_one_that_closes_early_still_stands_in_the_way() -> None:
    window, peer = OpeningWindow(), Peer()
    calls = filled(window, peer)
    window.adapt(False)
    calls[0].over()
    calls[1].over()
    assert window.count == len(calls)
    [told] = peer.asked
    told()
    assert window.count == 0
    assert peer.asked == [told]


@pytest.mark.parametrize("upstreams", [2, 5, 50])
def test_upstreams_that_take_all_they_may_leave_some_to_the_next(upstreams: int) -> None:
    windows, peer = OpeningWindows(), Peer()
    for number in range(upstreams):
        filled(windows.of(f"{number}"), peer)
        assert windows.of(f"{number}").count >= LEAST
    assert peer.under_way.count <= ALL + LEAST * upstreams
    assert len(filled(windows.of("next"), peer)) >= LEAST


def test_there_is_room_when_half_is_free() -> None:
    window, peer = OpeningWindow(), Peer()
    calls = filled(window, peer)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    for call in calls[: MOST // 2 - 1]:
        call.answered()
    assert not told
    calls[MOST // 2].answered()
    assert told == ["room"]
    calls[-1].answered()
    assert told == ["room"], "once"


def test_calls_that_a_service_lets_wait_are_in_nobodys_way() -> None:
    """The peer has handled them: it says so when it is asked."""
    window, one, other = OpeningWindow(), Peer(), Peer()
    mine = [Call(window, one) for _ in range(MOST // 2)]
    for _ in range(MOST // 2):
        Call(window, other)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    window.when_room(lambda: told.append("and again"))
    assert (len(one.asked), len(other.asked)) == (1, 1), "once for each, however many wait"
    one.asked.pop()()
    assert told == ["room", "and again"]
    assert (one.under_way.count, other.under_way.count) == (0, MOST // 2)
    mine[0].answered()
    assert window.count == MOST // 2, "late, and not counted twice"
    filled(window, one)
    window.when_room(lambda: None)
    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_calls_that_came_after_the_question_do_not_keep_others_waiting() -> None:
    """Calls that waited for a link come into a window without asking whether there is room."""
    window, one, other = OpeningWindow(), Peer(), Peer()
    filled(window, one)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    for session in (one, other) * MOST:
        Call(window, session)
    one.asked.pop(0)()
    assert not told
    other.asked.pop(0)()
    one.asked.pop(0)()
    assert told == ["room"]
    assert not window.count
    assert not one.asked
    assert not other.asked


def test_calls_that_ended_without_an_answer_leave_by_themselves() -> None:
    window, peer = OpeningWindow(), Peer()
    calls = [Call(window, peer) for _ in range(3)]
    calls[0].over()
    Call(window, peer).over()
    peer.asked.pop(0)()
    assert window.count == 1, "it has ended after the question"
    peer.asked.pop(0)()
    assert peer.under_way.count == 0
    assert not peer.asked
    calls[0].over()
    assert not peer.asked, "nobody waits for that"


def test_calls_that_end_with_their_session_leave_with_it() -> None:
    window, peer = OpeningWindow(), Peer()
    calls = filled(window, peer)
    told: list[str] = []
    window.when_room(lambda: told.append("room"))
    peer.gone = True
    peer.asked.pop()()
    for call in calls:
        call.over()
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
    window, peer = OpeningWindow(), Peer(way)
    calls = filled(window, peer)
    assert len(calls) == MOST * way
    for call in calls:
        call.answered()
    for _ in range(MOST):
        window.adapt(False)
    assert len(filled(window, peer)) == LEAST * way


def test_many_sessions_come_and_go() -> None:
    """Nothing is kept of those that carry no call."""
    window, steady = OpeningWindow(), Peer()
    call = Call(window, steady)
    for _ in range(100):
        Call(window, Peer()).answered()
        Call(window, steady).answered()
    assert (window.count, steady.under_way.count) == (1, 1)
    assert len(window._batches) <= 2
    call.answered()
    assert (window.count, steady.under_way.count) == (0, 0)
