"""The days that benchmarks/arrivals.py makes, and what the learnt TTL makes of them (the tables of docs/pool.md)."""

from __future__ import annotations

import pytest

from benchmarks.arrivals import DAY, DAYS, day
from proxy.pool.replay import CLOSE_ENOUGH, PriceSearch, ReplayTrace, fixed, replay
from proxy.pool.ttl import TtlTerms

TERMS = TtlTerms(handshake=0.001, price=0.01 / 3600, low=1.0, high=3600.0)
FIXED = (30.0, 60.0, 300.0, 900.0)


@pytest.mark.parametrize("kind", list(DAYS))
def test_the_same_seed_gives_the_same_day(kind: str) -> None:
    uses = day(kind)
    assert uses == day(kind)
    assert uses != day(kind, seed=2)
    assert len({use.peer for use in uses}) == sum(peers for _, peers in DAYS[kind])
    assert all(0 <= use.time < DAY and use.duration >= 0 for use in uses)
    assert uses == sorted(uses, key=lambda use: use.time)


@pytest.mark.parametrize(("ahead", "ttls"), [(True, FIXED), (False, (60.0,))])
def test_a_day_of_peers_that_differ(ahead: bool, ttls: tuple[float, ...]) -> None:
    """Set to the same link-seconds as any fixed TTL, the learnt one has more warm hits, also without opening ahead."""
    trace = ReplayTrace(day("mixed"))
    search = PriceSearch(trace, TERMS._replace(ahead=ahead))
    for ttl in ttls:
        same = replay(trace, fixed(ttl))
        found = search.matching(same.link_seconds)
        assert found is not None
        outcome = found[1]
        assert (1 - 10 * CLOSE_ENOUGH) * same.link_seconds < outcome.link_seconds <= same.link_seconds
        assert outcome.warm > same.warm, f"fixed {ttl:g} s"


def test_a_day_of_peers_that_are_alike() -> None:
    """One TTL for all is the best that can be had here: the learnt one comes within two thousandths of it."""
    trace = ReplayTrace(day("alike"))
    search = PriceSearch(trace, TERMS)
    for ttl in FIXED:
        same = replay(trace, fixed(ttl))
        found = search.matching(same.link_seconds)
        assert found is not None
        assert found[1].warm >= 0.998 * same.warm, f"fixed {ttl:g} s"
