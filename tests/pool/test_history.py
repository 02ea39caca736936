from __future__ import annotations

import sys
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.pool.history import (
    BINS,
    BURST,
    EDGES,
    FLOOR,
    MOST_EVIDENCE,
    PERIODS,
    RUN,
    SHARED_MEMORY,
    GapHistogram,
    UseHistory,
)

gaps = st.floats(0, 1e7)


def told(history: UseHistory, every: list[float], start: float = 0.0) -> None:
    """The history of a peer that is used for an instant, after each of these gaps."""
    now = start
    history.begin(now)
    history.end(now)
    for gap in every:
        now += gap
        history.begin(now)
        history.end(now)


@given(st.lists(st.integers(0, BINS - 1), max_size=50), st.integers(2, 500))
def test_shares_add_up_whatever_was_seen(positions: list[int], memory: int) -> None:
    seen = GapHistogram(memory)
    for position in positions:
        seen.add(position)
    shares = seen.mixed(None, 1.0)
    assert len(shares) == BINS
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0, "nothing is impossible"
    assert seen.mixed(shares, 3.0)[5] == pytest.approx(seen.share(5, shares[5], 3.0))


def test_old_gaps_fade() -> None:
    seen = GapHistogram(100)
    for _ in range(1000):
        seen.add(3)
    assert seen.count == pytest.approx(100, rel=0.01)
    for _ in range(100):
        seen.add(50)
    shares = seen.mixed(None, 0.001)
    assert shares[3] == pytest.approx(0.366, abs=0.01)
    assert shares[50] == pytest.approx(0.634, abs=0.01)


def test_weights_that_grow_for_ever_stay_numbers() -> None:
    seen = GapHistogram(2)
    for number in range(1000):
        seen.add(number % 2)
    assert seen.count == pytest.approx(2.0)
    assert sum(seen.mixed(None, 1.0)) == pytest.approx(1.0)


def size(thing: object) -> int:
    """Bytes of an object and of what it holds."""
    held = [getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if name != "_shared"]
    return sys.getsizeof(thing) + sum(size(each) for each in held) + (len(thing) * 24 if isinstance(thing, list) else 0)


@pytest.mark.failure(19)
def test_memory_is_bounded() -> None:
    random = Random(1)
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    told(history, [random.expovariate(0.01) for _ in range(100)])
    before = size(history)
    told(history, [random.paretovariate(1.1) for _ in range(20_000)], start=1e6)
    assert size(history) <= before + 200
    assert len(history.periods) == PERIODS


@given(st.lists(gaps, max_size=30))
def test_any_history_can_be_judged(every: list[float]) -> None:
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    told(history, every)
    assert history.gaps == len(every)
    assert history.known is bool(every)
    assert sum(history.shares()) == pytest.approx(1.0)


def test_a_clock_that_stands_still_or_goes_back_is_a_gap_of_nothing() -> None:
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    history.begin(10.0)
    history.end(10.0)
    history.begin(9.0)
    assert history.gaps == 1
    assert history.shares()[0] > 1 / BINS


def test_a_peer_unlike_the_others_is_judged_by_itself() -> None:
    shared, random = GapHistogram(SHARED_MEMORY), Random(2)
    clock = UseHistory(shared)
    others = [UseHistory(shared) for _ in range(5)]
    for number, other in enumerate(others):
        told(other, [random.expovariate(1.0) for _ in range(100)], start=number)
    told(clock, [60.0] * 10)
    assert clock.particular
    sixty = next(place for place, edge in enumerate(EDGES) if edge > 60) - 1
    assert clock.shares()[sixty] > 0.5
    assert others[0].shares()[sixty] < 0.1


def test_peers_that_are_alike_are_mostly_judged_together() -> None:
    shared, random = GapHistogram(SHARED_MEMORY), Random(3)
    peers = [UseHistory(shared) for _ in range(20)]
    for number, peer in enumerate(peers):
        told(peer, [random.paretovariate(1.3) for _ in range(200)], start=number)
    assert sum(peer.particular for peer in peers) <= 2


def test_a_peer_that_changes_is_believed_before_long() -> None:
    shared, random = GapHistogram(SHARED_MEMORY), Random(4)
    peer, other = UseHistory(shared), UseHistory(shared)
    told(other, [random.expovariate(1.0) for _ in range(1000)])
    told(peer, [random.expovariate(1.0) for _ in range(1000)])
    assert not peer.particular
    told(peer, [600.0] * 15, start=1e6)
    assert peer.particular


def test_bursts_and_the_distance_of_their_beginnings() -> None:
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    for burst in range(4):
        for call in range(3):
            history.begin(300.0 * burst + call)
            history.end(300.0 * burst + call + 0.5)
    assert list(history.periods) == [300.0] * 3
    assert history.began == 900.0


def test_the_first_gap_that_ends_a_burst() -> None:
    history = UseHistory(GapHistogram(SHARED_MEMORY))
    told(history, [BURST - 0.01, BURST])
    assert list(history.periods) == [pytest.approx(2 * BURST - 0.01)]


@given(st.integers(2, 3000), st.lists(st.tuples(st.integers(0, 3), st.integers(1, RUN)), max_size=30))
def test_gaps_that_are_added_together_weigh_what_they_would_one_by_one(
    memory: int, adds: list[tuple[int, int]]
) -> None:
    together, single = GapHistogram(memory), GapHistogram(memory)
    for position, times in adds:
        together.add(position, times)
        for _ in range(times):
            single.add(position)
    assert together.count == pytest.approx(single.count, rel=1e-9)
    assert together.mixed(None, 1.0) == pytest.approx(single.mixed(None, 1.0), rel=1e-9)


class Peers:
    """Some peers of one host. Looked at after each use, they learn each gap as it comes."""

    def __init__(self, count: int) -> None:
        self.shared = GapHistogram(SHARED_MEMORY)
        self.each = [UseHistory(self.shared) for _ in range(count)]
        self.now = 0.0

    def use(self, number: int, gap: float, *, look: bool) -> None:
        """The peer is used so long after the end of its last use, or now if that has passed."""
        history = self.each[number]
        self.now = max(self.now, history.idle_since + gap)
        history.begin(self.now)
        history.end(self.now)
        if look:
            self.shared.settle()

    def statistics(self) -> tuple[list[object], list[float]]:
        """What must be the same to the bit, and what is rounded."""
        exact: list[object] = []
        rounded: list[float] = []
        for history in self.each:
            exact += [history.gaps, history.began, list(history.periods), history.known]
            rounded += [*history.shares(), history._evidence, history._own.count]
        return exact, [*rounded, self.shared.count]


def judged_alike(late: Peers, single: Peers) -> None:
    (exact, rounded), (exactly, roundly) = late.statistics(), single.statistics()
    assert exact == exactly
    assert rounded == pytest.approx(roundly, rel=1e-9, abs=1e-9)
    for one, other in zip(late.each, single.each, strict=True):
        assert one.particular == other.particular


uses = st.tuples(
    st.integers(0, 2),
    st.sampled_from([0.0, 0.001, FLOOR / 2, FLOOR, 1.0, BURST, 600.0]) | st.floats(0, 1e5),
    st.sampled_from([1, 1, 2, 50, RUN - 1, RUN, RUN + 1, 1000]),
)


@given(st.lists(uses, max_size=25), st.integers(0, 24))
@example([(0, 0.0, 1), (0, 0.0, 1), (0, 0.0, RUN + 1), (1, 0.0, 2)], 0)  # nothing tells peer 1 from the others
def test_short_gaps_learnt_late_give_the_same_statistics(every: list[tuple[int, float, int]], looked_at: int) -> None:
    late, single = Peers(3), Peers(3)
    for position, (number, gap, times) in enumerate(every):
        for _ in range(times):
            late.use(number, gap, look=False)
            single.use(number, gap, look=True)
        if position == looked_at:
            judged_alike(late, single)
    judged_alike(late, single)


def test_the_same_where_runs_are_so_long_that_they_tell_no_more() -> None:
    late, single, random = Peers(3), Peers(3), Random(5)
    for number, times in [(0, 1000), (1, 700), (2, 50_000), (0, 3), (2, 300), (1, 2), (2, 5_000), (2, 1), (0, 600)]:
        for gap in [random.paretovariate(0.4) for _ in range(10)] + [random.random() * FLOOR for _ in range(times)]:
            late.use(number, gap, look=False)
            single.use(number, gap, look=True)
        judged_alike(late, single)
        if times == 50_000:
            assert late.each[2]._evidence == MOST_EVIDENCE


def test_short_gaps_are_only_counted_until_somebody_looks() -> None:
    peers = Peers(2)
    peers.use(0, 0.0, look=False)
    for _ in range(5):
        peers.use(0, 0.1, look=False)
    assert peers.shared.total == 0
    assert (peers.each[0].gaps, peers.each[1].known) == (5, True)
    peers.each[1].shares()
    assert peers.shared.count == pytest.approx(5, rel=0.01)
