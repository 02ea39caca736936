from __future__ import annotations

import pytest

from proxy.pool.uses import FLOOR, GapCounter, Uses


class Gaps(GapCounter):
    """Keeps the ends of the gaps that are more than a number; after each, two short ones are only counted."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def gap(self, now: float) -> None:
        self.told.append(now)
        self.countable = 2


def test_the_first_use_is_the_end_of_a_gap() -> None:
    gaps = Gaps()
    gaps.begin(5.0)
    assert gaps.told == [5.0]


def test_short_gaps_are_only_counted_as_many_as_may_be() -> None:
    gaps = Gaps()
    for time in (5.0, 5.1, 5.2, 5.3, 5.4):
        gaps.begin(time)
        gaps.end(time)
    assert (gaps.told, gaps.countable) == ([5.0, 5.3], 1)


@pytest.mark.parametrize(("gap", "told"), [(FLOOR - 0.01, []), (FLOOR, [5.0 + FLOOR])])
def test_a_long_gap_is_told_at_once(gap: float, told: list[float]) -> None:
    gaps = Gaps()
    gaps.begin(4.0)
    gaps.end(5.0)
    gaps.begin(5.0 + gap)
    assert gaps.told[1:] == told


def test_who_counts_short_gaps_says_what_the_others_are() -> None:
    with pytest.raises(NotImplementedError):
        GapCounter().begin(1.0)


def test_sessions_that_have_streams_at_the_same_time_are_one_use() -> None:
    gaps = Gaps()
    uses = Uses(gaps)
    uses.began(1.0)
    uses.began(2.0)
    uses.ended(3.0)
    assert (uses.busy, gaps.told, gaps.idle_since) == (1, [1.0], float("-inf"))
    uses.ended(4.0)
    assert (uses.busy, gaps.idle_since) == (0, 4.0)
    uses.began(9.0)
    assert gaps.told == [1.0, 9.0]
