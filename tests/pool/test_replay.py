from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.recorded import RecordedUse
from proxy.pool.replay import PriceSearch, ReplayOutcome, ReplayTrace, fixed, learnt, replay
from proxy.pool.ttl import TtlTerms

TERMS = TtlTerms(handshake=0.001, price=0.01 / 3600, low=1.0, high=3600.0)


def use(time: float, duration: float = 0.0, peer: str = "b") -> RecordedUse:
    return RecordedUse(time=time, peer=peer, duration=duration, bytes=1)


def every(seconds: float, count: int) -> ReplayTrace:
    return ReplayTrace(use(number * seconds) for number in range(count))


uses = st.lists(
    st.builds(use, st.floats(0, 1e5), st.floats(0, 1e3), st.sampled_from(["b", "c", "d"])), min_size=1, max_size=60
)


def test_a_fixed_ttl_by_hand() -> None:
    trace = ReplayTrace([use(0.0, 2.0), use(1.0), use(10.0), use(50.0), use(51.0, 1.0, "c")])
    # b: 2 s in use, 8 s to a warm hit, 20 s held in vain, and 2 s of the 2 that are left; c: 1 s in use.
    assert replay(trace, fixed(20.0)) == ReplayOutcome(5, 2, 0, 3, 2.0 + 8.0 + 20.0 + 2.0 + 1.0)
    assert (trace.peers, trace.within, trace.span) == (2, 1, 52.0)


def test_an_empty_history() -> None:
    assert replay(ReplayTrace([]), fixed(1.0)) == ReplayOutcome(0, 0, 0, 0, 0.0)


@given(uses, st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_longer_fixed_ttl_has_more_warm_hits_and_holds_links_longer(
    every: list[RecordedUse], one: float, two: float
) -> None:
    trace = ReplayTrace(every)
    short, long = (replay(trace, fixed(ttl)) for ttl in sorted((one, two)))
    assert short.warm <= long.warm
    assert short.link_seconds <= long.link_seconds + 1e-6
    assert short.warm + short.handshakes == trace.uses


@given(uses, st.floats(1e-9, 1e-3), st.booleans())
def test_whatever_was_learnt_the_sums_are_right(every: list[RecordedUse], price: float, ahead: bool) -> None:
    trace = ReplayTrace(every)
    found = replay(trace, learnt(TERMS._replace(price=price, ahead=ahead)))
    assert found.uses == len(every)
    assert found.uses - found.warm + found.ahead <= found.handshakes
    assert trace.busy_seconds - 1e-6 <= found.link_seconds <= trace.peers * (trace.span + 1e-6)
    if not ahead:
        assert (found.warm + found.handshakes, found.ahead) == (found.uses, 0)


@given(uses, st.randoms())
def test_the_order_of_lines_does_not_matter(every: list[RecordedUse], random: object) -> None:
    other = sorted(every, key=lambda each: (each.duration, each.peer))
    assert replay(ReplayTrace(every), fixed(60.0))[:4] == replay(ReplayTrace(other), fixed(60.0))[:4]


def test_what_comes_later_changes_nothing_before() -> None:
    """It is causal: a history that goes on differently begins with the same decisions."""
    start = [use(number * 7.0) for number in range(40)]
    for every_s in (300, 1):
        rest = [use(10_000.0 + number * every_s) for number in range(40)]
        known: list[float] = []
        planner = learnt(TERMS)

        def noting(peer: object, now: float, known: list[float] = known, planner: object = planner) -> object:
            found = planner(peer, now)  # type: ignore[operator]
            known.append(found.ttl)
            return found

        replay(ReplayTrace([*start, *rest]), noting)  # type: ignore[arg-type]
        if rest[1].time > 10_100:
            first = known[:40]
        else:
            assert known[:40] == first


def test_a_clock_is_met_ahead() -> None:
    trace = every(600.0, 144)
    held = replay(trace, fixed(700.0))
    found = replay(trace, learnt(TERMS))
    assert found.warm > 125
    assert found.ahead > 120
    assert found.link_seconds < 0.15 * held.link_seconds


def test_no_price_holds_links_shorter_than_the_shortest_ttl() -> None:
    trace = every(600.0, 144)
    assert PriceSearch(trace, TERMS._replace(low=30.0)).matching(100.0) is None
