from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from control.store.leases import Leases


def test_a_lease_dies_and_stays_dying() -> None:
    leases = Leases()
    leases.add(1, 15, now=100)
    leases.add(2, 5, now=100)
    assert leases.next() == 105
    assert leases.due(104.9) == []
    assert leases.due(105) == [2]
    assert not leases.keep(2, now=105)
    assert leases.due(106) == [2]
    leases.forget(2)
    assert leases.due(106) == []
    assert leases.next() == 115
    assert len(leases) == 1


def test_kept_it_lives_on() -> None:
    leases = Leases()
    leases.add(1, 15, now=0)
    assert leases.keep(1, now=10)
    assert leases.next() == 25
    assert not leases.keep(2, now=10)
    leases.forget(1)
    assert leases.next() == math.inf
    assert not leases.keep(1, now=10)


def test_since_when_it_was_not_heard_of() -> None:
    leases = Leases()
    leases.add(1, 15, now=100)
    assert leases.unheard(1, now=104) == 4
    assert leases.keep(1, now=110)
    assert leases.unheard(1, now=110) == 0
    assert leases.unheard(1, now=124) == 14
    leases.due(125)
    assert leases.unheard(1, now=125) is None
    assert leases.unheard(2, now=125) is None


def test_all_get_their_time_again() -> None:
    leases = Leases()
    leases.add(1, 15, now=0)
    leases.add(2, 5, now=0)
    leases.add(3, 60, now=0)
    assert leases.due(5) == [2]
    leases.renew(now=100)
    assert leases.due(114) == [2]
    assert leases.due(115) == [1, 2]
    assert leases.next() == 160


steps = st.lists(st.tuples(st.sampled_from(["add", "keep", "forget", "pass"]), st.integers(1, 5), st.integers(1, 20)))


@given(steps)
def test_against_a_list_of_deadlines(steps: list[tuple[str, int, int]]) -> None:
    leases, model, dying, now, names = Leases(), {}, set(), 0, 0
    known: dict[int, int] = {}
    for action, lease, number in steps:
        name = known.get(lease, 0)
        if action == "add":
            names += 1
            known[lease] = names
            leases.add(names, number, now)
            model[names] = (number, now + number)
        elif action == "keep":
            assert leases.keep(name, now) is (name in model)
            if name in model:
                model[name] = (model[name][0], now + model[name][0])
        elif action == "forget":
            leases.forget(name)
            model.pop(name, None)
            dying.discard(name)
        else:
            now += number
        assert leases.next() == min((end for _, end in model.values()), default=math.inf)
        dying |= {name for name, (_, end) in model.items() if end <= now}
        model = {name: value for name, value in model.items() if name not in dying}
        assert leases.due(now) == sorted(dying)
