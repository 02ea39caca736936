from __future__ import annotations

import pytest

from proxy.pool.evidence import MOST_EVIDENCE, Shortest, of_run

NOTHING = (0.0, 0.0, 0.99)
SPREAD = 0.01


def test_no_gaps_are_no_evidence() -> None:
    assert of_run(1.5, 0, NOTHING, NOTHING, SPREAD) == 1.5


def test_the_first_gap_tells_nothing() -> None:
    assert of_run(0.0, 1, NOTHING, NOTHING, SPREAD) == pytest.approx(0.0)


def test_short_gaps_speak_for_the_histogram_that_has_more_of_them() -> None:
    short, mixed = (90.0, 90.0, 0.99), (500.0, 1000.0, 0.999)
    assert of_run(0.0, 10, short, mixed, SPREAD) > 5
    assert of_run(0.0, 10, (0.0, 90.0, 0.99), mixed, SPREAD) < -5


@pytest.mark.parametrize("times", [1, 2, 100])
def test_it_is_bounded(times: int) -> None:
    assert of_run(MOST_EVIDENCE, times, (90.0, 90.0, 0.99), (1.0, 1000.0, 0.999), SPREAD) == MOST_EVIDENCE
    assert of_run(-MOST_EVIDENCE, times, (0.0, 1e9, 0.99), (900.0, 1000.0, 0.999), SPREAD) == -MOST_EVIDENCE


def with_one_more(found: Shortest) -> Shortest:
    short, count, faded = found
    return short * faded + 1, count * faded + 1, faded


def test_gap_after_gap_it_is_the_same() -> None:
    own, every, evidence = (2.0, 30.0, 0.99), (900.0, 1000.0, 0.999), 0.0
    together = of_run(evidence, 50, own, every, SPREAD)
    for _ in range(50):
        evidence = of_run(evidence, 1, own, every, SPREAD)
        own, every = with_one_more(own), with_one_more(every)
    assert evidence == pytest.approx(together)
