from __future__ import annotations

import pytest

from control.base.exposition import OTHER
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.pump import edges
from proxy.pump.edges import QUIET, Edges, caller_name


class Holder:
    """Counts how often it was told."""

    told = 0

    def forget_edges(self) -> None:
        self.told += 1


def test_names() -> None:
    assert caller_name(Open("s", 7, "shop")) == "shop"
    assert caller_name(Open("s", 7)) == "uid 7"
    assert caller_name(Open("s", UNKNOWN_UID)) == "unknown"


def test_one_edge_for_each_caller_service_and_host() -> None:
    found = Edges()
    one = found.find("outbound", "shop", "redis", "host-b")
    assert found.find("outbound", "shop", "redis", "host-b") is one
    others = {
        found.find("outbound", "shop", "redis", "host-c"),
        found.find("outbound", "shop", "web", "host-b"),
        found.find("outbound", "uid 1", "redis", "host-b"),
        found.find("inbound", "shop", "redis", "host-b"),
    }
    assert len({one, *others}) == len(found) == 5


def test_what_is_counted() -> None:
    edge = Edges().find("outbound", "shop", "redis", "host-b")
    edge.opened += 3
    edge.over(CloseReason.FINISHED, 5, 7)
    edge.over(CloseReason.ABORTED, 1, 1)
    assert (edge.open, edge.ended, edge.failed, edge.sent, edge.received) == (1, 2, 0, 6, 8)
    assert (edge.reason, edge.failing_since) == (None, None)
    edge.fail(CloseReason.CONNECT_FAILED, 3.0)
    edge.over(CloseReason.OVERLOADED, 0, 0)
    assert (edge.failed, edge.reason, edge.failing_since) == (2, CloseReason.OVERLOADED, 3.0)


def test_callers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "MOST", 10)
    found = Edges()
    for number in range(100):
        found.find("outbound", f"uid {number}", "redis", "host-b")
    assert len(found) == 11
    assert found.find("outbound", "uid 99", "redis", "host-b").caller == OTHER
    assert found.find("outbound", "uid 3", "redis", "host-b").caller == "uid 3", "known before"
    for number in range(100):
        found.find("outbound", "uid 1", f"service-{number}", f"host-{number}")
    assert len(found) == 21
    last = found.find("outbound", "uid 1", "service-99", "host-99")
    assert (last.caller, last.service, last.peer) == (OTHER, OTHER, None)


def test_a_peer_cannot_take_the_places_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "MOST_OF_PEER", 3)
    found = Edges()
    for number in range(100):
        found.find("inbound", f"uid {number}", "redis", "host-b")
    assert [edge.caller for edge in found] == ["uid 0", "uid 1", "uid 2", OTHER]
    assert found.find("inbound", "uid 99", "redis", "host-c").caller == "uid 99"


def test_the_unused_are_forgotten_and_their_holders_told() -> None:
    found, holder = Edges(), Holder()
    found.kept_by(holder)
    quiet = found.find("inbound", "a", "redis", "host-b")
    busy, opened = found.find("outbound", "b", "redis", "host-b"), found.find("outbound", "c", "redis", "host-b")
    opened.opened = 1
    found.sweep(0.0)
    busy.opened = busy.ended = 1
    found.sweep(QUIET - 1)
    assert (len(found), holder.told) == (3, 0)
    found.sweep(QUIET)
    assert (list(found), holder.told) == ([busy, opened], 1)
    assert found.find("inbound", "a", "redis", "host-b") is not quiet
    found.sweep(3 * QUIET)
    assert opened in list(found), "its stream is open"


def test_holders_are_not_kept() -> None:
    found = Edges()
    found.kept_by(Holder())
    assert not list(found._holders)
