from __future__ import annotations

from typing import Any

import msgspec

from control.api.messages import Discovery, EdgeInfo, Ejection, LinkInfo, PeerStatus
from proxy.telemetry.page.changes import Flapping
from proxy.telemetry.page.problems import Found, Seen, lasting, problems

PEER = PeerStatus(name="host-b", address="b:1", state="up", links=1, streams=0, waiting=0)
DOWN = msgspec.structs.replace(PEER, state="down", links=0, last_error="connection refused", retry_in_s=2.0, waiting=3)
LINK = LinkInfo(
    id="host-b/1", peer="host-b", direction="dialled", local="a:1", remote="b:1", streams=4, age_s=1.0, idle_s=0.0,
    rtt_ms=None, bytes_sent=0, bytes_received=0, unacked=0, congested=False,
)  # fmt: skip
EDGE = EdgeInfo(
    caller="shop", caller_host="host-a", service="redis", host="host-b", direction="outbound", streams=1, opened=2,
    failed=1, sent=3, received=4, opened_per_s=0.5, failed_per_s=0.0, sent_per_s=5.0, received_per_s=6.0,
)  # fmt: skip
FAILING = msgspec.structs.replace(EDGE, reason="connect_failed", failing_s=75.0)


def found(**more: Any) -> list[Found]:
    usual: dict[str, Any] = {
        "host": "host-a", "peers": [PEER], "links": [LINK], "edges": [EDGE], "ejected": [], "missing": [],
        "offered": {"redis": ["host-b"]}, "control": None, "memory_used": 1, "memory_limit": 10, "flapping": {},
    }  # fmt: skip
    return problems(Seen(**{**usual, **more}))


def test_all_is_well() -> None:
    assert found() == []


def test_a_service_that_fails_is_named_with_its_host_and_since_when() -> None:
    other = msgspec.structs.replace(FAILING, caller="uid 7", failing_s=10.0)
    [problem] = found(edges=[FAILING, other])
    assert (problem.kind, problem.name, problem.since) == ("service", "redis at host-b", 75.0)
    assert problem.text == (
        "Service redis at host-b fails (connect_failed): 2 errors, for shop on host-a, uid 7 on host-a."
    )
    left = Ejection(service="redis", host="host-b", left_s=8.4, times=2)
    assert found(edges=[FAILING], ejected=[left])[0].text.endswith("The host is left alone for it for 8 s more.")
    nowhere = msgspec.structs.replace(FAILING, host=None, reason="peer_unreachable")
    assert found(edges=[nowhere])[0].text.startswith("Service redis fails (peer_unreachable): 1 error, ")


def test_a_host_that_is_down_is_the_cause_and_not_its_services() -> None:
    host, *rest = sorted(found(peers=[DOWN], edges=[FAILING]), key=lambda each: each.kind)
    assert (host.kind, host.name) == ("host", "host-b")
    assert host.text == (
        "Host host-b is down: connection refused. Calls that wait for it: 3. It is dialled again in 2 s."
    )
    assert [each.text for each in rest] == [
        "Service redis cannot be reached: all hosts that offer it are down: host-b."
    ]
    assert found(peers=[msgspec.structs.replace(DOWN, idle=True)]) == []
    assert found(peers=[msgspec.structs.replace(DOWN, last_error=None)]) == [], "its first dial has not failed yet"


def test_a_service_that_nobody_offers() -> None:
    [problem] = found(offered={"redis": []})
    assert problem.text == "Service redis cannot be reached: no host offers it."
    assert found(offered={"redis": ["host-a"]}, peers=[]) == []


def test_links() -> None:
    lost = msgspec.structs.replace(LINK, suspended_s=3.0, suspended_why="link_lost: reset")
    [problem] = found(links=[lost])
    assert (problem.kind, problem.since) == ("link", 3.0)
    assert problem.text == "Link host-b/1 to host-b is lost (link_lost: reset); streams that wait for another: 4."
    assert problem.name == "host-a to host-b"
    [problem] = found(flapping={"host-b": Flapping(5, 20.0)}, links=[LINK, lost])
    assert (problem.name, problem.since) == ("host-a to host-b", 20.0)
    assert problem.text == "The links to host-b flap: lost and resumed 5 times in a minute."
    [problem] = found(links=[msgspec.structs.replace(LINK, silent_s=1.5, congested=True)])
    assert (problem.name, problem.since) == ("host-a to host-b", 1.5)
    assert "is silent: what it sends is not acknowledged" in problem.text
    [problem] = found(links=[msgspec.structs.replace(LINK, congested=True)])
    assert "congested" in problem.text


def test_slow_readers_are_who_does_not_read() -> None:
    def slow(direction: str, cause: str) -> str:
        edge = msgspec.structs.replace(EDGE, direction=direction, stalled=2, stalled_by=cause, stalled_s=5.0)
        [problem] = found(edges=[edge])
        assert (problem.kind, problem.since) == ("reader", 5.0)
        return problem.text

    of_caller = "Slow reader: shop on host-a does not take its bytes; it holds 2 streams of redis back."
    of_service = "Slow reader: service redis at host-b does not take its bytes; it holds 2 streams of redis back."
    assert slow("outbound", "reader") == slow("inbound", "credit") == of_caller
    assert slow("outbound", "credit") == slow("inbound", "reader") == of_service
    for fields in ({"stalled_by": "link", "stalled_s": 5.0}, {"stalled_by": "reader", "stalled_s": 1.0}):
        assert found(edges=[msgspec.structs.replace(EDGE, stalled=1, **fields)]) == []


def test_this_host() -> None:
    assert found(missing=["unix:/r: its file is gone"])[0].text == "Unix:/r: its file is gone."
    assert found(memory_used=95, memory_limit=100)[0].name == "memory"
    control = Discovery(
        servers=["c:1"], server=None, last_error="c:1: refused", epoch="", revision=0, age_s=None, from_disk=True,
        hosts=1, unconfirmed=[], registered=False, registration_error="x", left_out={},
    )  # fmt: skip
    assert "No control server is reached (c:1: refused)" in found(control=control)[0].text
    there = msgspec.structs.replace(control, server="c:1")
    assert found(control=there)[0].text == "This host is not registered: x."
    assert found(control=msgspec.structs.replace(there, registered=True)) == []


def test_each_is_told_once() -> None:
    both = [msgspec.structs.replace(LINK, suspended_s=1.0), msgspec.structs.replace(LINK, suspended_s=1.0)]
    assert len(found(links=both)) == 1


def test_what_shows_in_no_edge_and_no_link_lasts() -> None:
    usual = {"host": "host-a", "ejected": [], "missing": [], "control": None, "memory_used": 95, "memory_limit": 100}
    lost = msgspec.structs.replace(LINK, suspended_s=3.0)
    seen = Seen(peers=[DOWN], links=[lost], edges=[FAILING], offered={"redis": ["host-b"]}, flapping={}, **usual)
    assert [each.key for each in lasting(seen)] == [("host", "host-b"), ("service", "redis"), ("this host", "memory")]
