from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.agent.handover.memoryshares import LEAST_PART, MemoryShares, Share
from proxy.config.memory import LEAST, MIB
from proxy.pump.budget import MemoryBudget

pytestmark = pytest.mark.failure("24", "33")

WHOLE = 512 * MIB


def shares(
    used: int = 0, kept: int = 0, total: int = WHOLE, per_peer: int | None = None
) -> tuple[MemoryBudget, MemoryShares]:
    budget = MemoryBudget(total, total // 2 if per_peer is None else per_peer)
    assert budget.take(used)
    return budget, MemoryShares(budget, lambda: kept, total, budget.per_peer)


def test_alone_it_has_all() -> None:
    budget, memory = shares(used=100 * MIB)
    assert memory.divide() == {}
    assert (budget.limit, budget.per_peer) == (WHOLE, WHOLE // 2)


def test_what_nobody_uses_is_shared_equally() -> None:
    budget, memory = shares(used=100 * MIB)
    memory.heard({"old": 200 * MIB})
    assert memory.divide() == {"old": Share(306 * MIB, 153 * MIB)}
    assert (budget.limit, budget.per_peer) == (206 * MIB, 103 * MIB)
    memory.heard({})
    memory.divide()
    assert budget.limit == WHOLE, "it has ended"


def test_sessions_without_a_link_count_like_held_bytes() -> None:
    _, memory = shares(used=10 * MIB, kept=30 * MIB)
    assert memory.use == 30 * MIB


def test_one_that_has_not_said_what_it_uses_is_left_alone() -> None:
    budget, memory = shares()
    memory.heard({"old": None, "older": 0})
    assert memory.divide() == {"older": Share(WHOLE // 3, WHOLE // 6)}
    assert budget.limit == WHOLE // 3


def test_never_next_to_nothing() -> None:
    budget, memory = shares()
    memory.heard({"old": WHOLE})
    assert memory.divide()["old"].limit == WHOLE
    assert budget.limit == LEAST
    budget, memory = shares(total=8 * MIB)
    memory.heard({"old": 8 * MIB})
    memory.divide()
    assert budget.limit == 8 * MIB // LEAST_PART


def test_another_configuration() -> None:
    budget, memory = shares()
    memory.heard({"old": 10 * MIB})
    memory.configure(100 * MIB, 100 * MIB)
    assert (budget.limit, budget.per_peer) == (45 * MIB, 45 * MIB)
    assert memory.divide() == {"old": Share(55 * MIB, 55 * MIB)}


def test_an_old_process_holds_what_it_is_told() -> None:
    budget, memory = shares(used=7)
    memory.told(Share(5, 2))
    assert (budget.limit, budget.per_peer, budget.used) == (5, 2, 7)
    assert not budget.take(1), "what it has it may keep"


@given(st.integers(MIB, 4 * WHOLE), st.lists(st.integers(0, WHOLE), min_size=1, max_size=3), st.data())
def test_together_they_hold_the_whole_and_none_loses_what_it_has(
    total: int, others: list[int], data: st.DataObject
) -> None:
    budget, memory = shares(used=data.draw(st.integers(0, total)), total=total)
    memory.heard({str(number): use for number, use in enumerate(others)})
    told = memory.divide()
    limits = [budget.limit, *(told[str(number)].limit for number in range(len(others)))]
    uses = [budget.used, *others]
    least = min(LEAST, total // LEAST_PART)
    assert all(least <= limit <= total for limit in limits)
    assert all(limit >= min(use, total) for limit, use in zip(limits, uses, strict=True))
    assert sum(limits) <= max(total, sum(uses)) + least * len(limits)
    if sum(uses) <= total and min(limits) > least:
        assert total - len(limits) <= sum(limits) <= total
