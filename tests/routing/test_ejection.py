"""Who is left alone, for how long, and that nobody is for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CloseReason
from proxy.routing import ejection
from proxy.routing.ejection import BASE, CEILING, FAILURES, WEIGHTS, Ejections

FAILED = CloseReason.CONNECT_FAILED


def fail(ejections: Ejections, times: int, now: float, reason: CloseReason = FAILED) -> list[float | None]:
    return [ejections.failed("web", "b", reason, now) for _ in range(times)]


def test_five_in_a_row() -> None:
    found = Ejections()
    assert not found.held
    assert fail(found, 4, 0) == [None] * 4
    found.succeeded("web", "b")
    assert not found.held
    assert fail(found, 5, 1) == [None] * 4 + [BASE]
    assert found.ejected("web", 1) == {"b"}
    assert found.ejected("web", 1 + BASE) == set()
    assert found.ejected("other", 1) == set()


def test_each_time_for_longer_until_a_stream_is_delivered() -> None:
    found, now, waits = Ejections(), 0.0, []
    fail(found, 4, now)
    for _ in range(20):
        seconds = found.failed("web", "b", FAILED, now)
        assert seconds is not None
        waits.append(seconds)
        assert fail(found, 3, now + 1) == [None] * 3, "it is left alone already"
        now += seconds
    assert waits[:5] == [30, 60, 120, 240, 300]
    assert set(waits[4:]) == {CEILING}
    found.succeeded("web", "b")
    assert fail(found, 5, now) == [None] * 4 + [BASE]


def test_overload_counts_half_and_what_is_not_its_fault_not_at_all() -> None:
    found = Ejections()
    assert fail(found, 9, 0, CloseReason.OVERLOADED) == [None] * 9
    assert fail(found, 1, 0, CloseReason.OVERLOADED) == [BASE]
    assert fail(found, 1, BASE, CloseReason.OVERLOADED) == [None], "not on half a failure"
    found = Ejections()
    for reason in set(CloseReason) - WEIGHTS.keys():
        assert fail(found, 20, 0, reason) == [None] * 20
    assert not found.held
    assert {CloseReason.NOT_ALLOWED, CloseReason.ABORTED, CloseReason.FINISHED}.isdisjoint(WEIGHTS)


def test_another_process_on_that_host_begins_afresh() -> None:
    found = Ejections()
    fail(found, 5, 0)
    found.failed("db", "c", FAILED, 0)
    found.forget("b")
    assert found.ejected("web", 0) == set()
    assert found.record("web", "b") is None
    assert found.record("db", "c") is not None


@pytest.mark.failure(19)
def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ejection, "MAX_RECORDS", 3)
    found = Ejections()
    for host in "abcde":
        for _ in range(5):
            found.failed("web", host, FAILED, 0)
    assert found.ejected("web", 0) == {"c", "d", "e"}


actions = st.tuples(st.sampled_from("bc"), st.sampled_from([*CloseReason, None]), st.floats(0, 100))


@given(st.lists(actions))
def test_nobody_is_left_alone_for_longer_than_the_ceiling(history: list[tuple[str, CloseReason | None, float]]) -> None:
    found, now, in_a_row = Ejections(), 0.0, dict.fromkeys("bc", 0.0)
    for host, reason, wait in history:
        now += wait
        if reason is None:
            found.succeeded("web", host)
            in_a_row[host] = 0.0
            assert host not in found.ejected("web", now)
        else:
            found.failed("web", host, reason, now)
            in_a_row[host] += WEIGHTS.get(reason, 0.0)
        for each in found.ejected("web", now):
            assert in_a_row[each] >= FAILURES
        assert found.ejected("web", now + CEILING) == set()


@pytest.mark.failure("28", "29")
@pytest.mark.parametrize("reason", [CloseReason.LOCAL_SHORTAGE, CloseReason.LOOP, CloseReason.NOT_ALLOWED])
def test_what_is_not_the_service_s_failure(reason: CloseReason) -> None:
    found = Ejections()
    assert fail(found, 100, 0, reason) == [None] * 100
    assert not found.held
