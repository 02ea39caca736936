from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from control.api.messages import (
    BusiestSource,
    ConnectStatus,
    ContainerOffer,
    ContainerSocket,
    Discovery,
    DoorStatus,
    LinkInfo,
    PeerStatus,
    Refusal,
    RouteCandidate,
    ServiceRoute,
    ServiceStatus,
    Status,
    StreamHolder,
    StreamInfo,
    UpstreamStatus,
)
from control.base.grid import Block
from control.cli import tables

PEER = PeerStatus(
    name="host-b", address="10.77.0.2:7600", state="down", links=0, streams=0, waiting=3, retry_in_s=75.0,
    memory_used=2048, last_error="[red]no\x1b[31m route",
)  # fmt: skip
STATUS = Status(
    host="host-a", pid=7, version="0.1.0", core="compiled",
    uptime_s=3700.0, security="none", sessions=1, streams=2, memory_used=1536,
    memory_limit=2**29, streams_opened=10, streams_aborted=4, streams_refused=3, handshakes_avoided=9, peers=[PEER],
    refused_by_reason={"overloaded": 1, "not_allowed": 2},
    upstreams=[
        UpstreamStatus(service="redis", listen="unix:/r", offered_by=["host-b", "host-c"]),
        UpstreamStatus(service="web", listen="tcp:127.0.0.1:80", offered_by=[]),
    ],
    services=[ServiceStatus(name="web", deliver="unix:/w", streams=4)],
)  # fmt: skip
LINK = LinkInfo(
    id="b/1", peer="host-b", direction="dialled", local="10.77.0.1:5", remote="10.77.0.2:7600", streams=2, age_s=61.0,
    idle_s=0.04, rtt_ms=None, bytes_sent=10**7, bytes_received=0, unacked=12, congested=True,
    ttl_s=42.0, ttl_reason="90 % of its gaps are shorter",
)  # fmt: skip
STREAM = StreamInfo(
    id="b/1/3", link=None, service="redis", direction="outbound", peer=None, state="waiting", age_s=1.0, bytes_sent=1,
    bytes_received=2, credit=262144, buffered=0, uid=1000,
)  # fmt: skip


def rows(block: Block) -> list[list[str]]:
    """The cells of a rendered table; columns stand two blanks apart."""
    out = io.StringIO()
    Console(file=out, width=1000, markup=False, highlight=False).print(*block.within(1000))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.getvalue().splitlines()]


def test_status() -> None:
    host, peers, upstreams, services = map(rows, tables.status_tables(STATUS))
    assert host == [
        ["host", "host-a"],
        ["proxy", "version 0.1.0 (compiled), pid 7, up 1h1m, security none"],
        ["sessions", "1"],
        ["streams", "2 open, 10 opened, 4 aborted, 3 refused (2 not_allowed, 1 overloaded)"],
        ["memory", "1.5 KiB of 512.0 MiB"],
        ["handshakes avoided", "9"],
    ]
    assert peers == [
        [
            *("peer", "address", "state", "links", "streams", "waiting", "warm", "ahead", "memory"),
            *("retry in", "last error"),
        ],
        ["host-b", "10.77.0.2:7600", "down", "0", "0", "3", "0", "0", "2.0 KiB", "1m15s", "[red]no\\x1b[31m route"],
    ]
    assert upstreams == [
        ["upstream", "listen", "offered by"],
        ["redis", "unix:/r", "host-b, host-c"],
        ["web", "tcp:127.0.0.1:80", "nobody"],
    ]
    assert services == [["service", "deliver", "streams"], ["web", "unix:/w", "4"]]


def test_links() -> None:
    assert rows(tables.links_table([LINK])) == [
        ["link", "peer", "direction", "local", "remote", "streams", "age", "idle", "rtt", "sent",
         "received", "unacked", "congested", "ttl", "why"],
        ["b/1", "host-b", "dialled", "10.77.0.1:5", "10.77.0.2:7600", "2", "1m1s", "0.0s", "-", "9.5 MiB",
         "0 B", "12 B", "yes", "42s", "90 % of its gaps are shorter"],
    ]  # fmt: skip


def test_who_decides_about_a_link() -> None:
    accepted, leaving = replace(LINK, ttl_s=None, ttl_reason=""), replace(LINK, leaving=True)
    assert [row[-2:] for row in rows(tables.links_table([accepted, leaving]))[1:]] == [
        ["-", "the peer decides"],
        ["42s", "leaving"],
    ]


def test_a_link_that_is_lost_and_one_that_was() -> None:
    lost = replace(LINK, suspended_s=2.5, suspended_why="peer_timeout: nothing heard for 5 s after a ping")
    again = replace(LINK, resumed=3)
    assert [row[-1] for row in rows(tables.links_table([lost, again]))[1:]] == [
        "suspended for 2.5s: peer_timeout: nothing heard for 5 s after a ping",
        "90 % of its gaps are shorter (resumed 3 times)",
    ]
    peers = rows(tables.status_tables(replace(STATUS, peers=[replace(PEER, suspended=1)]))[1])
    assert peers[1][3] == "0 + 1 suspended"
    waits = replace(
        PEER, suspended=1, suspended_streams=12, suspended_bytes=300 << 10, suspended_s=61.0, suspended_left_s=839.0
    )
    said = dict(rows(tables.status_tables(replace(STATUS, peers=[waits, PEER]))[0]))
    assert said["waits for a link"] == "host-b: 12 streams, 300.0 KiB, for 1m1s; 13m59s left"
    streams = rows(tables.streams_table([replace(STREAM, state="open", suspended=True)]))
    assert streams[1][5] == "open, suspended"


def test_a_peer_that_takes_so_many_streams_a_second() -> None:
    peers = rows(tables.status_tables(replace(STATUS, peers=[replace(PEER, opens_per_second=2000)]))[1])
    assert "3 (takes 2,000/s)" in peers[1]


def test_upstreams_whose_callers_are_held_back() -> None:
    one, other = STATUS.upstreams
    status = replace(STATUS, upstreams=[one, replace(other, held_back="too\x1b many")])
    upstreams = rows(tables.status_tables(status)[2])
    assert upstreams == [
        ["upstream", "listen", "offered by", "held back"],
        ["redis", "unix:/r", "host-b, host-c"],
        ["web", "tcp:127.0.0.1:80", "nobody", "too\\x1b many"],
    ]


def test_an_idle_peer_is_not_called_down() -> None:
    peers = rows(tables.status_tables(replace(STATUS, peers=[replace(PEER, idle=True)]))[1])
    assert peers[1][2] == "idle"


def test_streams() -> None:
    assert rows(tables.streams_table([STREAM])) == [
        ["stream", "service", "direction", "peer", "link", "state", "uid", "pid", "age", "sent", "received", "credit",
         "buffered"],
        ["b/1/3", "redis", "outbound", "-", "-", "waiting", "1000", "-", "1.0s", "1 B", "2 B", "256.0 KiB", "0 B"],
    ]


def test_no_rows() -> None:
    assert len(rows(tables.streams_table([]))) == 1
    assert len(rows(tables.links_table([]))) == 1


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
     (2**20, "1.0 MiB"), (2**30, "1.0 GiB"), (2**60, "1048576.0 TiB")],
)  # fmt: skip
def test_amount(count: int, text: str) -> None:
    assert tables.amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (10, "10s"), (59.6, "1m0s"), (75.2, "1m15s"), (3600, "1h0m"), (90_000, "1d1h")],
)
def test_span(seconds: float, text: str) -> None:
    assert tables.span(seconds) == text


DISCOVERY = Discovery(
    servers=["10.0.0.5:7601"], server="10.0.0.5:7601", last_error=None, epoch="one", revision=7, age_s=0.4,
    from_disk=False, hosts=3, unconfirmed=[], registered=True, registration_error=None, left_out={},
)  # fmt: skip


def discovery_rows(found: Discovery) -> list[list[str]]:
    return rows(tables.status_tables(replace(STATUS, control=found))[0])[6:]


def test_how_the_control_plane_is_followed() -> None:
    assert discovery_rows(DISCOVERY) == [
        ["control plane", "following 10.0.0.5:7601, heard 0.4s ago"],
        ["map", "revision 7, 3 hosts"],
        ["registered", "yes"],
    ]


def test_how_it_is_not() -> None:
    found = replace(
        DISCOVERY,
        server=None,
        last_error="no control server answers\x1b",
        age_s=3700.0,
        from_disk=True,
        unconfirmed=["host-b", "host-c"],
        registered=False,
        registration_error="taken",
        left_out={"web": "service without a socket: why"},
    )
    assert discovery_rows(found) == [
        ["control plane", "not reached, heard 1h1m ago: no control server answers\\x1b"],
        ["map", "revision 7, 3 hosts, 2 of them unconfirmed: host-b, host-c (from disk)"],
        ["registered", "no: taken"],
        ["left out", "web: service without a socket: why"],
    ]
    never = discovery_rows(replace(found, age_s=None, last_error=None))
    assert never[0] == ["control plane", "not reached, never heard: no answer yet"]


@pytest.mark.failure("30")
def test_what_needs_somebody_to_look_after_it() -> None:
    found = replace(DISCOVERY, renewal_error="refused\x1b", clock_ahead_s=13 * 3600.0)
    assert discovery_rows(found)[3:] == [
        ["certificate", "not renewed: refused\\x1b"],
        ["clock", "13h0m ahead of the control server's"],
    ]
    assert discovery_rows(replace(DISCOVERY, clock_ahead_s=-61.0))[3:] == [
        ["clock", "1m1s behind the control server's"]
    ]
    assert discovery_rows(replace(DISCOVERY, clock_ahead_s=59.0))[3:] == []
    told = replace(STATUS, config_stale="x.yaml: mount", record_stopped="full\x1b", cannot_accept=["links.listen: no"])
    assert rows(tables.status_tables(told)[0])[6:] == [
        ["configuration", "x.yaml: mount"],
        ["pool.record", "stopped: full\\x1b"],
        ["cannot accept", "links.listen: no"],
    ]


@pytest.mark.failure("22")
def test_other_proxies_of_the_name_are_named() -> None:
    other = "10.0.0.9:7600 (comes from 192.0.2.9)"
    assert discovery_rows(replace(DISCOVERY, namesake=other))[-1] == [
        "namesake", f"{other} wants to be this host too, and is refused",
    ]  # fmt: skip
    static = rows(tables.status_tables(replace(STATUS, namesakes=["another one, says host-b\x1b"]))[0])
    assert static[6:] == [["namesake", "another one, says host-b\\x1b"]]


@pytest.mark.failure("30")
def test_a_missing_socket_is_named() -> None:
    line = "cannot listen on unix:/r\x1b: in the way"
    found = rows(tables.status_tables(replace(STATUS, missing=[line]))[0])
    assert found[6:] == [["missing", line.replace("\x1b", "\\x1b")]]


def test_where_a_stream_would_go() -> None:
    candidates = [
        RouteCandidate(host="host-a", address="a:1", state="here", streams=0, ejected_for_s=12.0, failures=0.5),
        RouteCandidate(host="host-b", address="b:1", state="up", streams=4, unconfirmed=True),
        RouteCandidate(host="host-c", address="c:1", state="down", streams=0, static=True, last_error="refused"),
    ]
    route = ServiceRoute(service="web", listen="unix:/w", takes=["host-b"], why="because", candidates=candidates)
    summary, hosts = map(rows, tables.route_tables(route))
    assert summary == [
        ["service", "web"],
        ["called through", "unix:/w"],
        ["a new stream goes to", "host-b"],
        ["because", "because"],
    ]
    assert hosts[1:] == [
        ["host-a", "a:1", "this host", "0", "for 12s", "0.5", "-", "-"],
        ["host-b", "b:1", "up", "4", "-", "0", "control plane, unconfirmed", "-"],
        ["host-c", "c:1", "down", "0", "-", "0", "configuration", "refused"],
    ]
    offered = replace(route, deliver="unix:/web", allow=["host host-b", "uid 7"])
    assert rows(tables.route_tables(offered)[0])[4:] == [
        ["delivered here to", "unix:/web"], ["who may call it here", "host host-b; uid 7"],
    ]  # fmt: skip
    assert rows(tables.route_tables(replace(offered, allow=[]))[0])[5][1] == "everybody in the mesh"
    refused = Refusal(host="host-c", caller=None, uid=7, reason="loop", rule="no", times=3, first_s=75.2, last_s=1)
    assert rows(tables.route_tables(replace(offered, refused=[refused]))[2]) == [
        ["refused", "on", "times", "first", "last", "reason", "by"],
        ["uid 7", "host-c", "3", "1m15s ago", "1.0s ago", "loop", "no"],
    ]
    [nobody] = tables.route_tables(ServiceRoute(service="web", listen=None, takes=[], why="so", candidates=[]))
    assert rows(nobody)[1:3] == [["called through", "no socket on this host"], ["a new stream goes to", "nobody"]]


def test_holders() -> None:
    known = StreamHolder(service="redis", direction="outbound", peer="host-b", uid=1000, pid=4711, streams=3)
    unknown = StreamHolder(service="web", direction="inbound", peer=None, uid=None, pid=None, streams=1)
    assert rows(tables.holders_table([known, unknown]))[1:] == [
        ["redis", "outbound", "host-b", "1000", "4711", "3"],
        ["web", "inbound", "-", "-", "-", "1"],
    ]


def test_a_proxy_that_drains_says_so() -> None:
    draining = replace(STATUS, draining=True, drain_left_s=7.0)
    [host, *_] = tables.status_tables(draining)
    assert ["draining", "takes no more calls; ends in 7.0s at the latest"] in rows(host)
    assert not [row for row in rows(tables.status_tables(STATUS)[0]) if row[0] == "draining"]


@pytest.mark.failure("28")
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (BusiestSource(service="web", streams=7, uid=1000, pid=4711), "pid 4711, uid 1000: 7 streams of web"),
        (BusiestSource(service="web", streams=7, uid=1000), "uid 1000: 7 streams of web"),
        (BusiestSource(service="web", streams=1, address="10.0.0.5"), "10.0.0.5: 1 streams of web"),
        (BusiestSource(service="web", streams=1), "unknown: 1 streams of web"),
    ],
    ids=str,
)
def test_the_busiest_source(source: BusiestSource, shown: str) -> None:
    host, *_ = map(rows, tables.status_tables(replace(STATUS, busiest=source)))
    assert ["busiest source", shown] in host


def test_the_connect_socket() -> None:
    connect = ConnectStatus(listen="tcp:127.0.0.1:7680", services=None, open=3)
    assert rows(tables.status_tables(replace(STATUS, connect=connect))[3]) == [
        ["connect", "services", "open"],
        ["tcp:127.0.0.1:7680", "all", "3"],
    ]
    some = replace(connect, services=["redis", "web"], held_back="too many")
    assert rows(tables.status_tables(replace(STATUS, connect=some))[3])[1] == [
        "tcp:127.0.0.1:7680", "redis, web", "3", "too many",
    ]  # fmt: skip


def test_what_containers_have_by_label() -> None:
    socket = ContainerSocket(
        container="shop-1", caller="shop", service="redis", listen="tcp:127.77.0.2:6379", streams=3
    )
    offer = ContainerOffer(container="web-1", service="web", deliver="tcp:127.0.0.1:80")
    door = DoorStatus(connected=True, for_s=75.2, error="", sockets=[socket], offers=[offer])
    host, _, _, sockets, _ = map(rows, tables.status_tables(replace(STATUS, door=door)))
    assert ["door", "connected for 1m15s; containers: 2, sockets: 1, offers: 1"] in host
    assert sockets == [
        ["container", "caller", "calls", "listen", "streams"],
        ["shop-1", "shop", "redis", "tcp:127.77.0.2:6379", "3"],
    ]


def test_a_door_that_is_away_and_sockets_that_could_not_be_had() -> None:
    problems = [f"container c-{number}: denied" for number in range(21)]
    door = DoorStatus(connected=False, for_s=3.0, error="refused", sockets=[], offers=[], problems=problems)
    host, *others = map(rows, tables.status_tables(replace(STATUS, door=door)))
    assert ["door", "away for 3.0s: refused; containers: 0, sockets: 0, offers: 0"] in host
    lines = [line for name, line in host if name == "socket missing"]
    assert lines == [*problems[:20], "and 1 more (--json)"]
    assert not [table for table in others if table[0][0] == "container"]
    unheard = replace(door, error="", problems=[])
    last = rows(tables.status_tables(replace(STATUS, door=unheard))[0])[-1]
    assert last[1].startswith("away for 3.0s: no answer yet;")


def test_of_a_thousand_sockets_the_busiest_ones_are_shown() -> None:
    sockets = [
        ContainerSocket(container=f"c-{number}", caller="", service="redis", listen="unix:/r", streams=number)
        for number in range(1000)
    ]
    door = DoorStatus(connected=True, for_s=1.0, error="", sockets=sockets, offers=[])
    shown = rows(tables.status_tables(replace(STATUS, door=door))[3])
    assert shown[1] == ["c-999", "-", "redis", "unix:/r", "999"]
    assert len(shown) == 1 + tables.MOST_SOCKETS + 1
    assert shown[-1] == ["980 more (--json)", "-", "-", "-", str(sum(range(980)))]
