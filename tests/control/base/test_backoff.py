from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.base.backoff import CEILING, FACTOR, START, Backoff

pytestmark = pytest.mark.failure(9)

fractions = st.floats(0, 1, exclude_max=True)
settings = st.tuples(st.floats(1e-3, 10), st.floats(1, 10), st.floats(1, 1000)).map(
    lambda drawn: {"start": drawn[0], "factor": drawn[1], "ceiling": drawn[0] * drawn[2]}
)


def repeated(numbers: list[float]) -> Callable[[], float]:
    return iter(numbers).__next__


def almost_one() -> float:
    return 1 - 2**-53


def test_the_windows_in_numbers() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [round(backoff.next(), 9) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_a_delay_is_the_fraction_of_its_window() -> None:
    backoff = Backoff(repeated([0.0, 0.5, 0.25]))
    assert [backoff.next() for _ in range(3)] == [0.0, 0.1, 0.1]


def test_nothing_is_drawn_before_it_is_needed() -> None:
    backoff = Backoff(repeated([]))
    backoff.reset()
    with pytest.raises(StopIteration):
        backoff.next()


@given(st.lists(fractions, max_size=80), settings)
def test_every_delay_lies_within_its_window(drawn: list[float], options: dict[str, float]) -> None:
    backoff = Backoff(repeated(drawn), **options)
    for failures, fraction in enumerate(drawn):
        window = min(options["start"] * options["factor"] ** failures, options["ceiling"])
        assert backoff.next() == pytest.approx(fraction * window)


@given(st.lists(fractions, max_size=80), settings)
def test_no_delay_is_negative_or_above_the_ceiling(drawn: list[float], options: dict[str, float]) -> None:
    backoff = Backoff(repeated(drawn), **options)
    assert all(0 <= backoff.next() <= options["ceiling"] for _ in drawn)


@given(st.integers(0, 50), settings)
def test_after_a_reset_it_is_as_new(failures: int, options: dict[str, float]) -> None:
    used, fresh = Backoff(almost_one, **options), Backoff(almost_one, **options)
    for _ in range(failures):
        used.next()
    used.reset()
    assert [used.next() for _ in range(20)] == [fresh.next() for _ in range(20)]


@given(settings)
def test_the_window_never_shrinks_without_a_reset(options: dict[str, float]) -> None:
    backoff = Backoff(almost_one, **options)
    delays = [backoff.next() for _ in range(40)]
    assert delays == sorted(delays)


def test_a_peer_that_stays_away_for_ever() -> None:
    backoff = Backoff(almost_one)
    for _ in range(5000):
        delay = backoff.next()
    assert CEILING * 0.99 < delay <= CEILING


@given(st.integers(0, 2**32))
def test_many_hosts_that_fail_together_do_not_come_back_together(seed: int) -> None:
    """The point of jitter: of 100 hosts with the same history, no fifth of the window holds more than half."""
    source = random.Random(seed)
    backoffs = [Backoff(source.random) for _ in range(100)]
    for failures in range(8):
        window = min(START * FACTOR**failures, CEILING)
        delays = [backoff.next() for backoff in backoffs]
        for fifth in range(5):
            assert sum(fifth <= 5 * delay / window < fifth + 1 for delay in delays) < 50


@pytest.mark.parametrize(
    "options", [{"start": 0}, {"start": -1}, {"start": 6}, {"ceiling": 0.05}, {"factor": 0.9}, {"factor": float("nan")}]
)
def test_nonsense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="start"):
        Backoff(random.random, **options)
