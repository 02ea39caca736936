"""The global memory budget."""

from __future__ import annotations

import pytest

from proxy.pump.budget import Budget


@pytest.mark.failure(19)
def test_takes_up_to_its_limit_and_not_a_byte_more() -> None:
    budget = Budget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.used == 60
    assert budget.take(40)
    assert budget.used == 100
    assert budget.take(0)
    assert not budget.take(1)


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = Budget(100)
    assert budget.take(100)
    budget.give(30)
    assert not budget.take(31)
    assert budget.take(30)
    budget.give(100)
    assert budget.used == 0
