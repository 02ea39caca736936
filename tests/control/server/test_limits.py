from __future__ import annotations

import pytest

from control.server.limits import Admission, Rate


def test_connections_of_one_client_and_of_all() -> None:
    admission = Admission(3, 2)
    assert admission.enter("a")
    assert admission.enter("a")
    assert not admission.enter("a")
    assert admission.enter("b")
    assert not admission.enter("c")
    admission.leave("a")
    assert admission.enter("c")
    assert (admission.total, admission.turned_away) == (3, 2)


def test_a_rate_and_twice_as_many_at_once() -> None:
    rate = Rate(10)
    assert [rate.take("a", 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert rate.take("b", 0.0)
    assert rate.take("a", 0.1)
    assert not rate.take("a", 0.1)


@pytest.mark.failure(19)
def test_clients_are_forgotten() -> None:
    rate = Rate(1)
    for number in range(Rate.KEPT + 100):
        rate.take(f"{number}", 0.0)
    assert len(rate._buckets) == Rate.KEPT
