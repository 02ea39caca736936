from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.ttl import TtlTerms
from proxy.pool.usage import BULK_BYTES, BULK_MEMORY, BULK_RATE, HANDSHAKE, LinkDemand, PoolUsage, is_bulk

TERMS = TtlTerms(handshake=HANDSHAKE, price=0.01 / 3600, low=1.0, high=3600.0)
INF = float("inf")
SOON = 1e-6


def usage(**terms: float | bool) -> PoolUsage:
    return PoolUsage(GapHistogram(SHARED_MEMORY), TERMS._replace(**terms))  # type: ignore[arg-type]


def used(found: PoolUsage, *times: float) -> None:
    for time in times:
        found.began(time)
        found.ended(time + 0.1)


def test_nothing_has_happened() -> None:
    assert usage().wanted(5.0) == LinkDemand(False, False, INF)


def test_a_link_that_came_up_unused_is_kept_as_after_a_use() -> None:
    found = usage(low=7.0, high=7.0)
    found.link_up(5.0)
    assert found.wanted(5.0) == found.wanted(11.9) == LinkDemand(True, False, 12.0)
    assert found.wanted(12.0) == LinkDemand(False, False, INF)


def test_a_second_link_does_not_prolong_it() -> None:
    found = usage(low=7.0, high=7.0)
    found.link_up(5.0)
    found.link_up(8.0)
    assert found.wanted(8.0).until == 12.0


def test_while_it_is_used_and_afterwards() -> None:
    found = usage(low=7.0, high=7.0)
    found.began(1.0)
    found.began(2.0)
    found.ended(3.0)
    assert found.wanted(1000.0) == LinkDemand(True, False, INF)
    found.ended(1000.0)
    assert found.wanted(1000.0) == LinkDemand(True, False, 1007.0)
    assert found.wanted(1007.0) == LinkDemand(False, False, INF)
    found.began(2000.0)
    assert found.wanted(2000.0).link


def test_a_link_is_wanted_ahead_of_a_use_by_the_clock() -> None:
    found = usage()
    used(found, *(600.0 * run for run in range(10)))
    last = 600.0 * 9 + 0.1
    idle = found.wanted(last)
    assert idle.link
    closed = found.wanted(idle.until + SOON)
    assert (closed.link, closed.ahead) == (False, False)
    assert closed.until == pytest.approx(6000.0, abs=2.0)
    ahead = found.wanted(closed.until + SOON)
    assert (ahead.link, ahead.ahead) == (True, True)
    found.link_up(closed.until + SOON)
    assert found.wanted(closed.until + SOON) == ahead, "the link came as it was wanted"
    assert found.wanted(ahead.until + SOON) == LinkDemand(False, False, INF)


def test_handshakes_are_measured() -> None:
    found = usage()
    assert found.terms.handshake == HANDSHAKE
    found.dialled(0.008)
    assert found.terms.handshake == 0.008
    found.dialled(0.016)
    assert found.terms.handshake == pytest.approx(0.009)
    for _ in range(100):
        found.dialled(0.0)
    assert found.terms.handshake > 0


def test_what_is_told() -> None:
    found = usage(low=7.0, high=7.0)
    assert found.told(0.0) == (7.0, "no gap between uses seen yet")
    used(found, 0.0, 3.0)
    ttl, why = found.told(4.0)
    assert ttl == 7.0
    assert "gaps are shorter; a handshake takes 1.0 ms; 10 ms for an hour idle" in why
    found.began(5.0)
    assert found.told(6.0)[0] == 7.0


@given(st.lists(st.floats(0, 1e4), max_size=40))
def test_what_is_wanted_changes_when_it_said(gaps: list[float]) -> None:
    found, now = usage(), 0.0
    for gap in gaps:
        used(found, now)
        now += 0.1 + gap
    seen = found.wanted(now)
    if seen.until < INF:
        assert found.wanted((now + seen.until) / 2) == seen
        assert found.wanted(seen.until + SOON) != seen


# Bulk


def test_what_is_bulk() -> None:
    assert is_bulk(BULK_BYTES, 1.0)
    assert not is_bulk(BULK_BYTES - 1, 0.001)
    assert is_bulk(BULK_RATE * 10, 10.0)
    assert not is_bulk(BULK_BYTES * 2, 3600.0), "small messages all day"


def test_a_service_proves_heavy_and_is_forgotten() -> None:
    found = usage()
    found.moved("web", 100, 1.0, 0.0)
    assert not found.any_bulk
    found.moved("backup", BULK_BYTES, 1.0, 10.0)
    assert found.bulk("backup", 10.0)
    assert not found.bulk("web", 10.0)
    assert found.bulk("backup", 10.0 + BULK_MEMORY)
    assert not found.bulk("backup", 10.1 + BULK_MEMORY)
    assert not found.any_bulk


def test_a_service_that_is_seldom_heavy_is_not_bulk() -> None:
    found = usage()
    found.moved("mixed", BULK_BYTES, 1.0, 0.0)
    for _ in range(10):
        found.moved("mixed", 100, 0.1, 1.0)
    assert not found.bulk("mixed", 1.0)


def test_a_service_that_nobody_calls_any_more_is_forgotten_too() -> None:
    found = usage()
    found.moved("backup", BULK_BYTES, 1.0, 10.0)
    found.expire(10.0 + BULK_MEMORY)
    assert found.any_bulk
    found.expire(10.1 + BULK_MEMORY)
    assert (found.any_bulk, found.counted) == (False, set())


def test_light_streams_are_counted_until_they_are_most_and_again_after_a_heavy_one() -> None:
    found = usage()
    found.moved("mixed", BULK_BYTES, 1.0, 0.0)
    assert found.counted == {"mixed"}
    found.count({"mixed": 1})  # how many were open is known from here on
    for _ in range(10):
        found.opened("mixed")
    found.count({"mixed": 11})
    assert found.bulk("mixed", 0.0), "all of them go on"
    found.count({"mixed": 2})
    assert (found.bulk("mixed", 0.0), found.counted) == (False, set())
    found.moved("mixed", BULK_BYTES, 1.0, 1.0)
    assert (found.bulk("mixed", 1.0), found.counted) == (False, {"mixed"})


def test_heavy_streams_that_end_are_not_counted_as_light() -> None:
    found = usage()
    found.moved("backup", BULK_BYTES, 1.0, 0.0)
    found.count({})
    for _ in range(20):
        found.opened("backup")
        found.moved("backup", BULK_BYTES, 1.0, 0.0)
    found.count({})
    assert found.bulk("backup", 0.0)


def test_other_terms_keep_the_measured_handshake_and_make_another_plan() -> None:
    found = usage()
    found.dialled(0.5)
    used(found, 1.0)
    before = found.told(2.0)[0]
    found.adopt(TERMS._replace(low=77.0, high=77.0))
    assert found.terms.handshake == 0.5
    assert found.told(2.0)[0] == 77.0 != before
