"""However many links a peer has: it gets one share of each turn, and they take turns at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from proxy.pump.budget import MemoryBudget
from proxy.pump.loop import Pump
from proxy.pump.pace import PEER_FRAMES, PEER_TIME, SLOW_FRAMES
from proxy.pump.turn import LaneReader
from proxy.pump.turnshare import TurnShare

pytestmark = pytest.mark.failure("21b-d")


class Turns(Pump):
    """A pump that makes turns when told."""

    def __init__(self) -> None:
        super().__init__(MemoryBudget(1 << 20), LaneReader())
        self.asked: list[Any] = []
        self.broken: list[Any] = []

    def again(self, watcher: Any) -> None:
        self.asked.append(watcher)

    def failed(self, watcher: Any) -> None:  # type: ignore[override]
        self.broken.append(watcher)

    def turn(self, *ready: Any) -> None:
        """First what the epoll reports, then who asked for it, as the loop does."""
        self.turns += 1
        asked, self.asked = self.asked, []
        for watcher in (*ready, *asked):
            watcher.ready(0)


class Timed(TurnShare):
    """One that goes by the test's clock."""

    def __init__(self, pump: Pump, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(pump)
        self.clock_of_test = clock

    def clock(self) -> float:
        return self.clock_of_test()


class Link:
    """One with `frames` slow frames left to handle."""

    def __init__(self, share: TurnShare, frames: int, broken: bool = False) -> None:
        self.share, self.frames, self.broken = share, frames, broken
        self.waits = False

    def ready(self, mask: int) -> None:
        if self.broken:
            raise ValueError("a bug")
        self.waits = False
        frames = min(self.share.take(cast(Any, self), self.share.clock()), self.frames)
        self.waits = not frames
        if frames:
            self.frames -= frames
            self.share.took(frames)
            if self.frames:
                self.waits = True
                self.share.wait(cast(Any, self))


def links(pump: Turns, *frames: int) -> list[Link]:
    share = Timed(pump)
    return [Link(share, each) for each in frames]


def test_one_link_alone() -> None:
    pump = Turns()
    (link,) = links(pump, 3 * SLOW_FRAMES)
    pump.turn(link)
    assert link.frames == 2 * SLOW_FRAMES
    pump.turn()
    pump.turn()
    assert (link.frames, pump.asked) == (0, [])


@pytest.mark.parametrize("count", [3, 64, 500])
def test_many_links_get_no_more_than_one_share_and_all_come_to_their_turn(count: int) -> None:
    pump = Turns()
    many = links(pump, *[2 * SLOW_FRAMES] * count)
    pump.turn(*many)
    for _ in range(count):
        left = sum(link.frames for link in many)
        pump.turn()
        assert left - sum(link.frames for link in many) <= PEER_FRAMES
        assert len(pump.asked) <= 1
    assert [link.frames for link in many] == [0] * count
    assert pump.asked == []


def test_who_comes_later_waits_behind_the_others() -> None:
    pump = Turns()
    first, second, third, late = links(pump, 99, 99, 99, 1)
    pump.turn(first, second, third)
    pump.turn(late)
    assert late.frames == 1, "the epoll reported it before the others had their turn"
    for _ in range(3):
        pump.turn()
    assert late.frames == 0


def test_a_link_that_ends_takes_nothing_from_the_bound() -> None:
    """It handles what it has read, without asking."""
    pump = Turns()
    ending, other = links(pump, 0, 99)
    pump.turn(ending)
    ending.share.took(1000)
    pump.turns -= 1
    pump.turn(other)
    assert (other.frames, other.waits) == (99, True)
    pump.turn()
    assert other.frames == 99 - SLOW_FRAMES


def test_another_peer_has_its_own() -> None:
    pump = Turns()
    many = links(pump, *[99] * 9)
    (other,) = links(pump, 5)
    pump.turn(*many, other)
    assert other.frames == 0


class Endless(Link):
    """One that always has more to handle."""

    def __init__(self, share: TurnShare) -> None:
        super().__init__(share, 1 << 30)

    @property
    def handled(self) -> int:
        return (1 << 30) - self.frames


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize("honest_first", [True, False], ids=["reported first", "reported last"])
def test_an_honest_link_is_served_in_each_turn_beside_64_that_flood(peers: int, honest_first: bool) -> None:
    """However many turns; and they get no more of each than one link would, and take turns at it."""
    pump, turns = Turns(), 640
    floods = [[Endless(share) for share in [Timed(pump)] * 64] for _ in range(peers)]
    many = [link for flood in floods for link in flood]
    (honest,) = links(pump, 0)
    for turn in range(turns):
        honest.frames = SLOW_FRAMES
        before = [sum(link.handled for link in flood) for flood in floods]
        fresh = many if not turn else []
        pump.turn(*([honest, *fresh] if honest_first else [*fresh, honest]))
        assert honest.frames == 0, f"turn {turn}"
        for flood, handled in zip(floods, before, strict=True):
            assert sum(link.handled for link in flood) - handled == PEER_FRAMES
    for flood in floods:
        each = [link.handled for link in flood]
        # Those that are reported first have their turn before the others are seen, and ask for the next at once.
        assert max(each) - min(each) <= PEER_FRAMES
        assert sum(each) == turns * PEER_FRAMES
    assert pump.broken == []


@pytest.mark.parametrize("late", [1, 2, 37])
def test_an_honest_link_that_comes_later_waits_for_none_of_them(late: int) -> None:
    pump = Turns()
    flood = [Endless(share) for share in [Timed(pump)] * 64]
    pump.turn(*flood)
    for _ in range(late):
        pump.turn()
    (honest,) = links(pump, 2 * SLOW_FRAMES + 1)
    pump.turn(honest)
    assert honest.frames == SLOW_FRAMES + 1, "at once, as without them"
    pump.turn()
    pump.turn()
    assert honest.frames == 0


def test_a_link_with_a_bug_costs_the_others_nothing() -> None:
    pump = Turns()
    one, broken, two, three = links(pump, 99, 99, 40, 40)
    with capture_logs():
        pump.turn(one, broken, two, three)
        broken.broken = True
        for _ in range(20):
            pump.turn()
    assert (one.frames, two.frames, three.frames) == (0, 0, 0)
    assert pump.broken == [broken]


class Slow(Link):
    """One whose every frame takes long, of whichever kind."""

    def __init__(self, share: TurnShare, frames: int, time: list[float]) -> None:
        super().__init__(share, frames)
        self.time = time

    def ready(self, mask: int) -> None:
        if self.share.take(cast(Any, self), self.share.clock()):
            while self.frames:
                self.frames -= 1
                self.time[0] += PEER_TIME / 4
                if not self.share.more():
                    break
            self.share.took(0)
            if self.frames:
                self.share.wait(cast(Any, self))


def test_all_links_of_a_peer_share_the_time_of_a_turn() -> None:
    pump, time = Turns(), [100.0]
    share = Timed(pump, lambda: time[0])
    many = [Slow(share, 8, time) for _ in range(8)]
    (other,) = links(pump, 5)
    for turn in range(16):
        before = time[0]
        pump.turn(*(many if not turn else ()), *([other] if turn == 3 else []))
        assert time[0] - before <= 1.25 * PEER_TIME
    assert [link.frames for link in many] == [0] * 8
    assert other.frames == 0
    assert pump.asked == []
