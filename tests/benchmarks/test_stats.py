from __future__ import annotations

import pytest

from benchmarks import stats


def test_median_of_nothing_is_nothing() -> None:
    assert stats.median_or_none([]) is None
    assert stats.median_or_none([3.0, 1.0, 2.0]) == 2.0


def test_paired_ratio_compares_within_a_round() -> None:
    ours, theirs = {0: 20.0, 1: 200.0, 2: 30.0}, {0: 10.0, 1: 100.0, 2: 20.0}
    assert stats.paired_ratio(ours, theirs) == 2.0


def test_paired_ratio_uses_only_rounds_that_both_have() -> None:
    assert stats.paired_ratio({0: 1.0, 1: 8.0}, {1: 4.0, 2: 5.0}) == 2.0
    assert stats.paired_ratio({0: 1.0}, {1: 4.0}) is None
    assert stats.paired_ratio({0: 1.0}, {0: 0.0}) is None


@pytest.mark.parametrize(("values", "expected"), [([2.0, 4.0, 3.0], 2.0), ([5.0], 1.0), ([], 1.0), ([0.0, 1.0], 1.0)])
def test_spread(values: list[float], expected: float) -> None:
    assert stats.spread(values) == expected
