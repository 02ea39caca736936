"""When the loop looks for work instead of sleeping, by what it is told of its own looks and waits."""

from __future__ import annotations

import pytest

from proxy.pump.busypoll import BusyPoll
from proxy.pump.pace import ENOUGH, FEW_SPEAK, LOOKING, PAUSE, SHORT, TAKEN, WINDOW


def eager() -> BusyPoll:
    """One that has seen enough short waits."""
    busy_poll = BusyPoll(None)
    for _ in range(ENOUGH):
        busy_poll.waited(SHORT / 2)
    return busy_poll


def test_off() -> None:
    assert not BusyPoll(0.0).on


def test_auto_begins_after_enough_short_waits() -> None:
    busy_poll = BusyPoll(None)
    assert busy_poll.on
    for _ in range(ENOUGH):
        assert busy_poll.until(5.0) == 5.0
        busy_poll.waited(SHORT / 2)
    assert busy_poll.until(5.0) == 5.0 + LOOKING


@pytest.mark.parametrize("seconds", [SHORT, 0.005], ids=["longer than a short one", "nothing has come"])
def test_one_long_wait_and_it_sleeps_again(seconds: float) -> None:
    busy_poll = eager()
    busy_poll.waited(seconds)
    busy_poll.waited(SHORT / 2)
    assert busy_poll.until(5.0) == 5.0


def test_who_finds_something_each_time_goes_on_after_a_long_wait_but_not_after_two() -> None:
    busy_poll = eager()
    for _ in range(100 * ENOUGH):
        busy_poll.found()
    busy_poll.waited(SHORT)
    assert busy_poll.until(5.0) > 5.0
    busy_poll.waited(SHORT)
    assert busy_poll.until(5.0) == 5.0


def test_messages_that_come_at_a_steady_rate_are_no_conversation() -> None:
    """Each with its answer soon behind it, then nothing for a while; or one wait in ENOUGH that is longer."""
    for soon in (1, ENOUGH - 1):
        busy_poll = BusyPoll(None)
        for _ in range(1000):
            for _ in range(soon):
                busy_poll.waited(SHORT / 2)
            busy_poll.waited(2 * SHORT)
            assert busy_poll.until(5.0) == 5.0


def test_looks_in_vain_are_few() -> None:
    """Where everything comes a little too late for them, as short as the wait is."""
    busy_poll, vain = BusyPoll(None), 0
    for number in range(1000):
        if busy_poll.until(float(number)) > number:
            vain += 1
            busy_poll.waited(LOOKING * 100)  # what the loop says of a look in vain, whatever came behind it
        else:
            busy_poll.waited(SHORT * 0.9)
    assert vain <= 1000 / (ENOUGH / 2)


def test_where_each_of_many_has_something_now_and_then_it_does_not_look() -> None:
    busy_poll = eager()
    for fd in range(WINDOW):
        busy_poll.turn(1000 + fd % (FEW_SPEAK + 1))
    assert busy_poll.until(5.0) == 5.0
    for fd in range(WINDOW):
        busy_poll.turn(1000 + fd % FEW_SPEAK)
    assert busy_poll.until(5.0) > 5.0


def test_a_set_time_is_kept_however_many_speak() -> None:
    busy_poll = BusyPoll(SHORT)
    for fd in range(WINDOW):
        busy_poll.turn(fd)
    assert busy_poll.until(5.0) == 5.0 + SHORT


def test_a_core_that_somebody_else_wants_is_left_to_them() -> None:
    busy_poll = eager()
    assert busy_poll.looked(5.0, 5.0 + TAKEN / 10)
    assert not busy_poll.looked(5.0, 5.0 + 2 * TAKEN)
    assert busy_poll.until(5.0 + PAUSE) == 5.0 + PAUSE
    assert busy_poll.until(6.0) > 6.0


def test_a_quota_of_cpu_time_is_for_work() -> None:
    busy_poll = eager()
    busy_poll.quota = True
    assert not busy_poll.on
    assert busy_poll.told == "off (auto: a quota of CPU time is set)"
    busy_poll.set(50e-6)
    assert (busy_poll.on, busy_poll.told) == (True, "50 us")
    busy_poll.quota = False
    busy_poll.set(None)
    assert (busy_poll.on, busy_poll.told) == (True, "auto")


def test_a_time_holds_always() -> None:
    busy_poll = BusyPoll(50e-6)
    assert busy_poll.until(5.0) == 5.0 + 50e-6
    assert busy_poll.looked(5.0, 5.0 + 2 * TAKEN), "also beside others"
    assert busy_poll.until(5.0) == 5.0 + 50e-6


def test_what_it_costs() -> None:
    busy_poll = BusyPoll(1e-3)
    for now in (0.25, 0.5, 1.0):
        busy_poll.looked(now / 2, now)
    assert busy_poll.spent == 0.875
