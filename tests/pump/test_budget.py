"""The global memory budget."""

from __future__ import annotations

import pytest

from proxy.pump.budget import MemoryBudget


@pytest.mark.failure(19)
def test_takes_up_to_its_limit_and_not_a_byte_more() -> None:
    budget = MemoryBudget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.used == 60
    assert budget.take(40)
    assert budget.used == 100
    assert budget.take(0)
    assert not budget.take(1)


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = MemoryBudget(100)
    assert budget.take(100)
    budget.give(30)
    assert not budget.take(31)
    assert budget.take(30)
    budget.give(100)
    assert budget.used == 0


@pytest.mark.failure(19)
def test_a_peer_takes_its_share_and_leaves_the_rest_to_others() -> None:
    budget = MemoryBudget(100, per_peer=60)
    greedy, modest = budget.account("host-b"), budget.account("host-c")
    assert greedy.take(60)
    assert not greedy.take(1)
    assert modest.take(40)
    assert not modest.take(1), "the whole budget is used"
    assert not budget.take(1)
    assert (greedy.used, modest.used, budget.used) == (60, 40, 100)
    greedy.give(60)
    assert modest.take(20)
    assert not modest.take(1)
    modest.give(60)
    assert (greedy.used, modest.used, budget.used) == (0, 0, 0)


def test_all_links_of_a_peer_share_one_account() -> None:
    budget = MemoryBudget(100)
    assert budget.account("host-b") is budget.account("host-b")
    assert budget.account("host-b").take(100), "without a share of its own: all of it"


def test_the_account_of_a_peer_that_is_none_any_more() -> None:
    budget = MemoryBudget(100)
    account = budget.account("b")
    account.take(10)
    budget.forget("b")
    assert budget.accounts == {"b": account}, "its bytes are still to be given back"
    account.give(10)
    budget.forget("b")
    budget.forget("b")
    assert (budget.accounts, budget.used) == ({}, 0)


@pytest.mark.failure("33")
def test_who_watches_is_told_once_when_enough_was_given_back() -> None:
    budget, told = MemoryBudget(1000), list[int]()
    budget.take(50)
    budget.watch(40, lambda: told.append(budget.used))
    budget.take(100)
    budget.give(39)
    budget.take(20)  # 131, with 150 as the most so far
    assert told == []
    budget.give(21)
    assert told == [110]
    budget.give(110)
    assert told == [110]
    budget.watch(40, lambda: told.append(budget.used))
    budget.take(500)
    budget.give(500)
    assert told == [110, 0]
