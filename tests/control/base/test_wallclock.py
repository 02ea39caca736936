"""Clocks that are set, and machines that sleep."""

from __future__ import annotations

import pytest

from control.base.wallclock import ClockWatch


class Clocks:
    """Both of a machine."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_800_000_000.0, 70.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.mark.failure("30a")
def test_jumps_are_noticed_once() -> None:
    clocks = Clocks()
    watch = ClockWatch(lambda: clocks.wall, lambda: clocks.steady)
    clocks.pass_by(5)
    assert watch.jump() == 0
    clocks.wall += 86_400  # asleep
    clocks.pass_by(5)
    assert watch.jump() == 86_400
    assert watch.jump() == 0
    clocks.wall -= 3600  # set back
    assert watch.jump() == -3600
    assert watch.jump() == 0


def test_a_clock_that_is_corrected_bit_by_bit_does_not_jump() -> None:
    clocks = Clocks()
    watch = ClockWatch(lambda: clocks.wall, lambda: clocks.steady)
    for _ in range(10_000):
        clocks.pass_by(5)
        clocks.wall += 0.0025
        assert watch.jump() == 0
