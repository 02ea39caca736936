from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool import ttl
from proxy.pool.history import BINS, EDGES, SHARED_MEMORY, WIDTHS, GapHistogram, UseHistory
from proxy.pool.ttl import LEAD, IdlePlan, TtlTerms, keep, reason
from tests.pool.test_history import told

TERMS = TtlTerms(handshake=0.001, price=0.01 / 3600, low=1.0, high=3600.0)

shares = (
    st.lists(st.floats(0, 1), min_size=BINS, max_size=BINS)
    .filter(sum)
    .map(lambda drawn: [each / sum(drawn) for each in drawn])
)
prices = st.floats(1e-9, 1.0)
terms = st.builds(
    lambda handshake, price, low, more: TtlTerms(handshake, price, low, low + more),
    st.floats(1e-5, 10), prices, st.floats(0, 100), st.floats(0, 1e5),
)  # fmt: skip
histories = st.lists(st.floats(0, 1e5), max_size=40)


def plan(history: UseHistory, since: float, terms: TtlTerms) -> IdlePlan:
    return ttl.plan(history, ttl.gauge(history, terms), since, terms)


def known(every: list[float], shared: GapHistogram | None = None) -> tuple[UseHistory, float]:
    """A peer's history, and when its last use ended."""
    history = UseHistory(shared or GapHistogram(SHARED_MEMORY))
    told(history, every)
    return history, sum(every)


@given(histories, terms)
def test_a_ttl_lies_within_its_bounds(every: list[float], terms: TtlTerms) -> None:
    found = plan(*known(every), terms)
    assert terms.low <= found.ttl <= terms.high
    assert -1e-9 <= found.shorter <= 1 + 1e-9
    if found.ahead is not None:
        assert found.ttl <= found.ahead[0] < found.ahead[1]


@given(shares, terms, prices)
def test_a_higher_price_never_makes_it_longer(shares: list[float], terms: TtlTerms, price: float) -> None:
    cheap, dear = sorted((terms.price, price))
    longer = keep(shares, terms._replace(price=cheap), terms.high)[0]
    shorter = keep(shares, terms._replace(price=dear), terms.high)[0]
    assert shorter <= longer


@given(shares, terms)
def test_no_other_ttl_is_cheaper(shares: list[float], terms: TtlTerms) -> None:
    """Against the definition, worked out for each bin's end."""

    def cost(end: int) -> float:
        held = sum(
            (sum(shares[place + 1 :]) + shares[place] / 2) * width for place, width in enumerate(WIDTHS[: end + 1])
        )
        return terms.handshake * sum(shares[end + 1 :]) + terms.price * held

    found = keep(shares, terms, terms.high)[0]
    allowed = [place for place in range(BINS - 1) if terms.low <= EDGES[place + 1] <= terms.high]
    if allowed:
        chosen = cost(EDGES.index(found) - 1)
        assert chosen <= min(map(cost, allowed)) + 1e-9 * (1 + chosen)


def test_nothing_known() -> None:
    history, now = known([])
    found = plan(history, now, TERMS)
    assert TERMS.low <= found.ttl <= TERMS.high
    assert found.ahead is None
    assert reason(history, found, TERMS) == "no gap between uses seen yet"


def test_a_link_is_held_through_gaps_that_are_worth_it() -> None:
    history, now = known([5.0] * 50)
    short = plan(history, now, TERMS)
    assert 5 < short.ttl < 60
    assert short.shorter > 0.9
    assert 5 < plan(history, now, TERMS._replace(price=TERMS.price * 10)).ttl < 8


def test_a_minute_s_clock_is_held_when_links_are_cheap_and_not_when_they_are_dear() -> None:
    history, now = known([60.0] * 50)
    cheap = plan(history, now, TERMS._replace(price=1e-7))
    assert cheap.ttl > 60
    dear = plan(history, now, TERMS._replace(price=1e-3))
    assert dear == IdlePlan(dear.ttl, dear.shorter, None)
    assert dear.ttl < 2


def test_a_longer_handshake_is_worth_a_longer_ttl() -> None:
    random = Random(1)
    history, now = known([random.paretovariate(0.7) for _ in range(300)])
    ttls = [plan(history, now, TERMS._replace(handshake=cost, ahead=False)).ttl for cost in (1e-4, 1e-3, 1e-2)]
    assert ttls == sorted(ttls)
    assert ttls[0] < ttls[2]


def test_a_clock_is_met_by_a_link_opened_ahead() -> None:
    random = Random(2)
    periods = [600 + random.uniform(-2, 2) for _ in range(12)]
    history, now = known(periods)
    found = plan(history, now, TERMS)
    assert found.ahead is not None
    begin, end = found.ahead
    assert 590 < begin <= 600 - LEAD < 600 < end < 610
    assert found.ttl < 60
    assert plan(history, now, TERMS._replace(ahead=False)).ahead is None


def test_it_is_reckoned_from_the_beginning_of_the_burst() -> None:
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    for burst in range(10):
        for call in range(5):
            history.begin(600.0 * burst + call)
            history.end(600.0 * burst + call + 0.2 * burst % 1)
    now = 600.0 * 9 + 4.2
    found = plan(history, now, TERMS)
    assert found.ahead is not None
    assert found.ahead[0] == pytest.approx(600 - 4.2 - LEAD, abs=0.1)


def test_chance_is_no_clock() -> None:
    random = Random(3)
    seen = 0
    for _ in range(50):
        history, now = known([random.expovariate(1 / 600) for _ in range(100)])
        seen += plan(history, now, TERMS).ahead is not None
    assert seen == 0


def test_a_clock_is_not_seen_too_soon() -> None:
    assert plan(*known([600.0] * 5), TERMS).ahead is None
    assert plan(*known([600.0] * 9), TERMS).ahead is not None


def test_reasons() -> None:
    shared = GapHistogram(SHARED_MEMORY)
    known([5.0] * 50, shared)
    history, now = known([600.0] * 12, shared)
    found = plan(history, now, TERMS)
    assert reason(history, found, TERMS) == (
        f"{found.shorter:.0%}".replace("%", " %") + " of its gaps are shorter; a handshake takes 1.0 ms; 10 ms for an "
        "hour idle; opened ahead after 599 s, as the last 12 bursts tell"
    )
    newcomer, _ = known([], shared)
    assert "of all peers' gaps are shorter" in reason(newcomer, plan(newcomer, 0.0, TERMS), TERMS)
