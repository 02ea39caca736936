"""Deadlines by trio's clock, which stands still here until it is told to jump."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.pump.deadlines import Deadlines


class Timeline:
    """Deadlines that are running, and what they did when."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.happened: list[tuple[float, str]] = []
        self.settled = 0
        self.deadlines = Deadlines(self._settle)
        self.start = clock.current_time()

    def _settle(self) -> None:
        self.settled += 1

    def note(self, name: str) -> None:
        self.happened.append((round(self.clock.current_time() - self.start, 6), name))

    def add(self, seconds: float, name: str) -> object:
        return self.deadlines.add(seconds, lambda: self.note(name))

    async def jump(self, seconds: float) -> None:
        await wait_all_tasks_blocked()
        self.clock.jump(seconds)
        await wait_all_tasks_blocked()


@pytest.fixture
async def timeline(mock_clock: MockClock) -> AsyncIterator[Timeline]:
    line = Timeline(mock_clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(line.deadlines.run)
        yield line
        nursery.cancel_scope.cancel()


async def test_actions_run_when_they_are_due_in_order(timeline: Timeline, mock_clock: MockClock) -> None:
    timeline.add(3, "three")
    timeline.add(1, "one")
    timeline.add(2, "two")
    await timeline.jump(0.999)
    assert timeline.happened == []
    for _ in range(3):
        await timeline.jump(1)
    assert timeline.happened == [(1.999, "one"), (2.999, "two"), (3.999, "three")]


async def test_those_that_are_due_together_run_in_the_order_of_their_making_and_settle_once(
    timeline: Timeline, mock_clock: MockClock
) -> None:
    for name in "abc":
        timeline.add(1, name)
    await timeline.jump(5)
    assert [name for _, name in timeline.happened] == ["a", "b", "c"]
    assert timeline.settled == 1


async def test_an_earlier_one_wakes_the_task(timeline: Timeline, mock_clock: MockClock) -> None:
    timeline.add(10, "late")
    await wait_all_tasks_blocked()
    timeline.add(1, "early")
    await timeline.jump(1)
    assert timeline.happened == [(1, "early")]


async def test_cancelled_ones_never_run(timeline: Timeline, mock_clock: MockClock) -> None:
    first, second = (timeline.deadlines.add(1, lambda: timeline.note("never")) for _ in range(2))
    timeline.add(2, "last")
    first.cancel()
    await wait_all_tasks_blocked()
    second.cancel()
    second.cancel()
    await timeline.jump(1)
    await timeline.jump(1)
    assert timeline.happened == [(2, "last")]
    assert timeline.settled == 1


async def test_an_action_may_add_and_cancel(timeline: Timeline, mock_clock: MockClock) -> None:
    doomed = timeline.deadlines.add(1.5, lambda: timeline.note("never"))

    def act() -> None:
        timeline.add(1, "follow-up")
        timeline.add(0, "at once")
        doomed.cancel()

    timeline.deadlines.add(1, act)
    await timeline.jump(1)
    assert timeline.happened == [(1, "at once")]
    await timeline.jump(1)
    assert timeline.happened == [(1, "at once"), (2, "follow-up")]


@pytest.mark.failure(18)
async def test_a_bug_in_one_costs_no_other(timeline: Timeline, mock_clock: MockClock) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    timeline.deadlines.add(1, fail)
    timeline.add(1, "another")
    timeline.add(2, "later")
    await timeline.jump(1)
    await timeline.jump(1)
    assert timeline.happened == [(1, "another"), (2, "later")]
    assert timeline.settled == 2


async def test_cancelling_one_that_has_run_is_nothing(timeline: Timeline, mock_clock: MockClock) -> None:
    deadline = timeline.deadlines.add(1, lambda: timeline.note("once"))
    await timeline.jump(1)
    deadline.cancel()
    await timeline.jump(10)
    assert timeline.happened == [(1, "once")]


@pytest.mark.failure(1)
async def test_nothing_is_kept_of_what_is_over(timeline: Timeline, mock_clock: MockClock) -> None:
    for number in range(1000):
        deadline = timeline.add(1, "x") if number % 2 else timeline.deadlines.add(1, list)
        if number % 3 == 0:
            deadline.cancel()
    await timeline.jump(2)
    assert timeline.deadlines._queue == []
