"""Seconds by cause, taken again and again without counting one twice."""

from __future__ import annotations

from proxy.pump.stalls import Stalls


def test_each_cause_has_its_own_seconds() -> None:
    stalls = Stalls()
    stalls.from_sending(False, 1)
    stalls.sending(3)
    stalls.from_sending(True, 4)
    stalls.from_delivering(5)
    stalls.sending(8)
    stalls.delivering(13)
    assert stalls.take(20) == (2, 4, 8)
    assert stalls.take(30) == (0, 0, 0)


def test_what_goes_on_is_counted_up_to_now() -> None:
    stalls = Stalls()
    stalls.from_sending(True, 10)
    stalls.from_delivering(12)
    assert stalls.take(13) == (0, 3, 1)
    assert stalls.take(15) == (0, 2, 2)
    stalls.sending(16)
    stalls.delivering(16)
    assert stalls.take(99) == (0, 1, 1)


def test_going_on_without_having_stopped_counts_nothing() -> None:
    stalls = Stalls()
    stalls.sending(5)
    stalls.delivering(5)
    assert stalls.take(6) == (0, 0, 0)


def test_another_cause_ends_the_first() -> None:
    stalls = Stalls()
    stalls.from_sending(False, 0)
    stalls.from_sending(True, 1)
    assert stalls.take(3) == (1, 2, 0)


def test_what_holds_it_back_now() -> None:
    stalls = Stalls()
    assert stalls.held(1) is None
    stalls.from_sending(False, 2)
    stalls.from_delivering(3)
    assert stalls.held(5) == ("credit", 3)
    stalls.from_sending(True, 4)
    assert stalls.held(5) == ("reader", 2)
    stalls.delivering(5)
    assert stalls.held(5) == ("link", 1)
    stalls.sending(5)
    assert stalls.held(6) is None


def test_all_of_them_are_told_whoever_has_taken_some() -> None:
    stalls = Stalls()
    stalls.from_sending(False, 0)
    assert stalls.take(1) == (1, 0, 0)
    assert stalls.so_far(3) == (3, 0, 0)
    stalls.sending(4)
    stalls.from_delivering(5)
    assert stalls.so_far(7) == (4, 0, 2)
    assert stalls.take(7) == (3, 0, 2)
