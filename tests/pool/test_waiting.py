from __future__ import annotations

from proxy.pool.waiting import WaitingList
from tests.pool.hosts import Waiting


def test_the_first_that_came_is_the_first_that_goes() -> None:
    waiting, first, second = WaitingList(), Waiting(), Waiting()
    assert waiting.add(first, 2)
    assert waiting.add(second, 2)
    waiting.serve_one()
    assert (first.times, second.times, list(waiting)) == (1, 0, [second])
    waiting.serve_one()
    waiting.serve_one()
    assert (second.times, len(waiting)) == (1, 0)


def test_a_full_list_takes_no_more() -> None:
    waiting, first, second = WaitingList(), Waiting(), Waiting()
    assert waiting.add(first, 1)
    assert not waiting.add(second, 1)
    assert (waiting.remove(second), waiting.remove(first), waiting.remove(first)) == (False, True, False)


def test_who_comes_back_while_all_are_served_waits_for_the_next_time() -> None:
    waiting = WaitingList()

    class Again(Waiting):
        def link_up(self) -> None:
            super().link_up()
            assert waiting.add(self, 2)

    again, other = Again(), Waiting()
    waiting.add(again, 2)
    waiting.add(other, 2)
    waiting.serve_all()
    assert (again.times, other.times, list(waiting)) == (1, 1, [again])
