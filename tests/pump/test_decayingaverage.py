from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pump.decayingaverage import DecayingAverage

changes = st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=20)


def test_by_hand() -> None:
    share = DecayingAverage(1.0, 0.0)
    assert share.value(10.0) == 0.0
    share.set(True, 10.0)
    assert share.value(10.0) == 0.0
    assert share.value(11.0) == pytest.approx(1 - 1 / math.e)
    share.set(False, 11.0)
    assert share.value(12.0) == pytest.approx((1 - 1 / math.e) / math.e)


@given(changes, st.floats(0.01, 100))
def test_it_is_a_part_of_the_whole(changes: list[tuple[bool, float]], memory: float) -> None:
    share, now = DecayingAverage(memory, 0.0), 0.0
    for on, seconds in changes:
        share.set(on, now)
        now += seconds
        assert 0.0 <= share.value(now) <= 1.0


@given(changes)
def test_looking_changes_nothing(changes: list[tuple[bool, float]]) -> None:
    one, other, now = DecayingAverage(1.0, 0.0), DecayingAverage(1.0, 0.0), 0.0
    for on, seconds in changes:
        one.set(on, now)
        other.set(on, now)
        other.set(on, now + seconds / 2)
        now += seconds
    assert one.value(now) == pytest.approx(other.value(now))
