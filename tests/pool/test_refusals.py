"""Refusals that make a run, and silences and other answers that end it."""

from __future__ import annotations

import pytest

from proxy.pool.refusals import RefusalRun, pause

pytestmark = pytest.mark.failure("23")


def run_of(*times: float, timeout: float = 2.0) -> RefusalRun:
    run = RefusalRun()
    for now in times:
        run.refused(now, timeout)
    return run


def every(seconds: float, until: float) -> list[float]:
    return [number * seconds for number in range(int(until / seconds) + 1)]


@pytest.mark.parametrize(
    ("times", "lasted"),
    [
        ([], 0.0),
        ([5.0], 0.0),
        (every(0.25, 2.0), 2.0),
        ([0.0, 0.25, 1.5, 1.75, 2.0], 2.0),
        ([0.0, 0.25, 3.3, 3.5], 0.2),
        ([0.0, 2.0], 0.0),
    ],
    ids=["none", "one", "throughout", "a packet lost", "a silence", "one before it and one behind"],
)
def test_how_long_it_lasts(times: list[float], lasted: float) -> None:
    assert run_of(*times).lasted(since=-1.0) == pytest.approx(lasted)


def test_only_what_lies_behind_the_loss_counts() -> None:
    run = run_of(*every(0.25, 4.0))
    assert [run.lasted(since=since) for since in (-9.0, 0.0, 3.0, 5.0)] == [4.0, 4.0, 1.0, 0.0]


def test_any_other_answer_breaks_it() -> None:
    run = run_of(*every(0.25, 1.75))
    assert run.unbroken
    run.broken()
    assert (run.unbroken, run.lasted(0.0)) == (False, 0.0)
    run.refused(2.0, 2.0)
    assert run.lasted(0.0) == 0.0


@pytest.mark.parametrize(("timeout", "seconds"), [(0.001, 0.05), (2.0, 0.25), (3600.0, 5.0)])
def test_questions_are_neither_rare_nor_a_storm(timeout: float, seconds: float) -> None:
    assert pause(timeout) == seconds


def test_a_machine_without_time_may_be_late_with_each() -> None:
    """Twice as late as planned is no silence."""
    assert run_of(*every(0.5, 4.0)).lasted(0.0) == 4.0
