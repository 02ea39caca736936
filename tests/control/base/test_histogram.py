"""Values fall into the bucket whose bound they do not exceed."""

from __future__ import annotations

import pytest

from control.base.histogram import Histogram


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram([0.1, 1])
    for value in (0, 0.1, 0.11, 1, 1.01):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.total == pytest.approx(2.22)


def test_a_value_may_stand_for_several() -> None:
    histogram = Histogram([1])
    histogram.observe(0.5, 4)
    histogram.observe(3)
    assert (histogram.counts, histogram.total) == ([4, 1], 5)
