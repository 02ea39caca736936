"""What is counted of a peer, whichever pool it has."""

from __future__ import annotations

from types import SimpleNamespace

from proxy.errors import CloseReason
from proxy.pool.peercounts import PEER_SERIES, PeerCounts
from proxy.pump.seriesbudget import SeriesBudget


def test_handshakes_avoided_go_on_in_the_next_pool() -> None:
    count = PeerCounts().of("a")
    first, second = SimpleNamespace(avoided=3), SimpleNamespace(avoided=0)
    count.use("a", first)
    assert count.avoided == 3
    first.avoided = 5
    count.use("a", second)
    second.avoided = 2
    assert count.avoided == 7


def test_peers_beyond_the_bound_are_one() -> None:
    counts = PeerCounts(SeriesBudget(PEER_SERIES))
    for peer in "abc":
        counts.of(peer).use(peer, SimpleNamespace(avoided=1))
        counts.of(peer).link_ended(CloseReason.IDLE)
        counts.of(peer).shaken("outbound", "ok", 0.002)
    assert list(counts.of.all) == ["a", "other"]
    other = counts.of.all["other"]
    assert (other.avoided, other.ended, other.handshakes) == (2, {CloseReason.IDLE: 2}, {("outbound", "ok"): 2})
    assert other.handshake_seconds.count == 2


def test_strangers() -> None:
    counts = PeerCounts()
    counts.refused()
    assert counts.strangers == 1
