from __future__ import annotations

from typing import Any

import pytest

from control.api.messages import LinkInfo, PeerState, PeerStatus, Status, UpstreamStatus
from proxy.check.report import Unchecked
from proxy.explain.account import ExplanationFacts, MessagePath, PathLayer, UnixHop, chosen, explain

UPSTREAM = UpstreamStatus(service="redis", listen="unix:/run/x/redis.sock", offered_by=["host-b", "host-c"])
UNIX = UnixHop(directory="/run/x", connect_ms=0.01, round_trip_ms=0.02)


def peer(name: str, state: PeerState = "up", error: str | None = None) -> PeerStatus:
    return PeerStatus(
        name=name, address=f"{name}:7600", state=state, links=0, streams=0, waiting=0, last_error=error
    )  # fmt: skip


def status(*peers: PeerStatus, avoided: int = 0) -> Status:
    return Status(
        host="host-a", pid=7, version="0", uptime_s=1.0, security="none", sessions=1, streams=2, memory_used=0,
        memory_limit=1, streams_opened=20, streams_refused=0, handshakes_avoided=avoided, peers=list(peers),
        upstreams=[UPSTREAM], services=[],
    )  # fmt: skip


def link(number: int = 1, **more: Any) -> LinkInfo:
    given = {
        "id": f"host-b/{number}", "peer": "host-b", "direction": "dialled", "local": "10.0.0.1:5",
        "remote": "10.0.0.2:7600", "streams": 2, "age_s": 60.0, "idle_s": 0.0, "rtt_ms": 0.5, "bytes_sent": 0,
        "bytes_received": 0, "unacked": 0, "congested": False, "open_ms": 0.75,
    }  # fmt: skip
    return LinkInfo(**{**given, **more})


def facts(**more: Any) -> ExplanationFacts:
    given: dict[str, Any] = {
        "status": status(peer("host-b"), avoided=19),
        "upstream": UPSTREAM,
        "unix": UNIX,
        "peer": peer("host-b"),
        "links": (link(),),
        "direct_to": "10.0.0.2",
        "direct_ms": 0.04,
        "carried_ms": 0.05,
    }
    return ExplanationFacts(**{**given, **more})


def texts(way: MessagePath | None) -> list[str]:
    assert way is not None
    return [f"{part.name}: {part.read}" for part in way.parts]


@pytest.mark.failure("32")
def test_both_ways() -> None:
    bridge = PathLayer(name="bridge docker0", read="MTU 1500", where="here", costs="a look-up")
    macvlan = PathLayer(name="macvlan mv0", read="10.0.0.1/24", where="here")
    found = explain(facts(direct=(bridge,), carried=(macvlan,)))
    assert (found.service, found.host, found.peer) == ("redis", "host-a", "host-b")
    assert found.direct is not None
    assert (found.direct.kernel_ms, found.through.kernel_ms) == (0.04, 0.05), "these two are alike"
    assert found.direct.round_trip_ms is None, "nobody there echoes what a process would"
    assert [part.name for part in found.direct.parts] == ["caller", "bridge docker0", "host-b"]
    assert found.direct.parts[1].costs == "a look-up"
    assert found.through.round_trip_ms == pytest.approx(0.52)
    assert [part.name for part in found.through.parts] == [
        "caller", "proxy of host-a", "macvlan mv0", "link host-b/1", "proxy of host-b", "redis",
    ]  # fmt: skip
    assert found.through.parts[-1].read == "heard of it 0.75 ms after the opening left; the caller did not wait"


def test_what_was_saved() -> None:
    assert explain(facts()).saved == (
        "19 handshakes avoided by 20 streams; links open now: 1",
        "that is 0.009 s of waiting, at 0.500 ms for a round trip of the link",
    )
    assert len(explain(facts(links=(link(rtt_ms=None),))).saved) == 1
    assert len(explain(facts(status=status(peer("host-b")))).saved) == 1


def test_the_best_link_is_shown() -> None:
    links = (link(1, rtt_ms=None, open_ms=None), link(2, rtt_ms=0.5, open_ms=3.0), link(3, rtt_ms=0.25, open_ms=2.0))
    lines = texts(explain(facts(links=links)).through)
    assert lines[2].startswith("link host-b/3: ")
    assert "2.00 ms" in lines[-1]


def test_what_is_not_known_yet() -> None:
    found = explain(facts(links=(link(rtt_ms=None, open_ms=None),), unix=Unchecked("a Unix socket", "no permission")))
    lines = texts(found.through)
    assert lines[0] == "caller: unix:/run/x/redis.sock: no permission"
    assert lines[2].endswith("; not pinged yet")
    assert lines[-1] == "redis: no stream was opened on these links yet; open one and ask again"
    assert found.through.round_trip_ms is None


@pytest.mark.failure("32")
def test_no_link() -> None:
    down = peer("host-b", "down", "connection refused")
    found = explain(facts(peer=down, links=(), direct_ms=Unchecked("the round trip", "it answers no echo requests")))
    part = found.through.parts[2]
    assert (part.seen, part.read) == (False, "there is none now, host-b is down: connection refused")
    assert texts(found.through)[1].endswith("and a link, once there is one")
    assert "the proxy has to dial one" in found.through.first_byte
    assert found.direct is not None
    last = found.direct.parts[-1]
    assert (last.seen, last.read) == (False, "10.0.0.2, it answers no echo requests")
    assert found.direct.kernel_ms is None


def test_a_service_of_this_host() -> None:
    found = explain(ExplanationFacts(status=status(), upstream=UPSTREAM, unix=UNIX))
    assert (found.peer, found.direct) == (None, None)
    assert texts(found.through)[1] == "proxy of host-a: process 7: socket to socket, no frames, no link"


@pytest.mark.parametrize(
    ("offered_by", "peers", "name"),
    [
        (["host-b", "host-c"], [peer("host-b", "down"), peer("host-c")], "host-c"),
        (["host-b", "host-c"], [peer("host-b", "down"), peer("host-c", "dialling")], "host-b"),
        (["host-a", "host-b"], [peer("host-b")], None),
        ([], [peer("host-b")], None),
    ],
)
def test_chosen(offered_by: list[str], peers: list[PeerStatus], name: str | None) -> None:
    upstream = UpstreamStatus(service="redis", listen="unix:/x", offered_by=offered_by)
    found = chosen(status(*peers), upstream)
    assert (found.name if found else None) == name
