"""So many a second, so many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.base.tokenbucket import TokenBucket


def taken(bucket: TokenBucket, now: float, tries: int = 100) -> int:
    return sum(bucket.take(now) for _ in range(tries))


def test_a_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=2, burst=5)
    assert taken(bucket, 1000.0) == 5
    assert taken(bucket, 1000.4) == 0
    assert taken(bucket, 1000.5) == 1
    assert taken(bucket, 1002.5) == 4
    assert taken(bucket, 2000.0) == 5, "a pause fills it, and no more than that"


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 1)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)


def test_it_is_full_again_when_nobody_took_for_long_enough() -> None:
    bucket = TokenBucket(1.0, 3)
    assert bucket.is_full(100.0)
    assert bucket.take(100.0)
    assert not bucket.is_full(100.5)
    assert bucket.is_full(101.0)


@pytest.mark.parametrize("start", [0.0, 7.1, 123_456.789, 1e7])
def test_rounding_costs_no_token(start: float) -> None:
    for rate in (3, 10, 70):
        assert taken(TokenBucket(rate, 20), start) == 20


@pytest.mark.failure(19)
@given(
    st.integers(1, 50), st.integers(1, 50), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 80)), max_size=30)
)
def test_never_more_than_the_burst_and_what_came_since(rate: int, burst: int, tries: list[tuple[float, int]]) -> None:
    bucket, now, got = TokenBucket(rate, burst), 7.0, 0
    for pause, wanted in tries:
        now += pause
        got += taken(bucket, now, wanted)
        assert got <= burst + (now - 7.0) * rate + 1e-6
