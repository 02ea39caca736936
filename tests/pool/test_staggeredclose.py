"""Streams that end bit by bit, by a clock of the test's."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from proxy.pool.staggeredclose import LONGEST_SPREAD, SPREAD, staggered_close

pytestmark = pytest.mark.failure(10)


async def cuts(seconds: float, count: int) -> list[float]:
    """When each of so many streams is cut, seconds from the beginning."""
    began, found = trio.current_time(), list[float]()
    settled = 0

    def cut() -> None:
        found.append(trio.current_time() - began)

    def settle() -> None:
        nonlocal settled
        settled = len(found)

    await staggered_close(began + seconds, lambda: [cut] * count, settle)
    assert settled == count
    return found


async def test_nothing_is_cut_before_the_last_part_and_all_is_at_the_end(autojump_clock: MockClock) -> None:
    found = await cuts(40.0, 100)
    assert len(found) == 100
    assert 40.0 * (1 - SPREAD) <= found[0] <= found[-1] <= 40.1


async def test_they_are_spread_evenly(autojump_clock: MockClock) -> None:
    found = await cuts(40.0, 1000)
    for quarter in range(4):
        low = 30.0 + 2.5 * quarter
        assert 240 <= sum(low <= when < low + 2.5 for when in found) <= 260


@pytest.mark.failure("24")
async def test_a_few_are_not_ended_as_soon_as_they_are_seen(autojump_clock: MockClock) -> None:
    """Each may have begun in this moment."""
    assert min(await cuts(4.0, 2)) >= 3.5


async def test_the_last_part_of_a_long_time_is_short(autojump_clock: MockClock) -> None:
    found = await cuts(3600.0, 10)
    assert found[0] >= 3600.0 - LONGEST_SPREAD


async def test_no_time_at_all(autojump_clock: MockClock) -> None:
    assert await cuts(0.0, 5) == [0.0] * 5


async def test_nothing_to_cut(autojump_clock: MockClock) -> None:
    assert await cuts(40.0, 0) == []


async def test_what_is_open_is_asked_when_the_last_part_begins(autojump_clock: MockClock) -> None:
    asked: list[float] = []
    began = trio.current_time()

    def streams() -> list[object]:
        asked.append(trio.current_time() - began)
        return []

    await staggered_close(began + 100.0, streams, lambda: None)  # type: ignore[arg-type]
    assert asked == [pytest.approx(75.0)]
