"""One call: which host gets it, what is said again, and how it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from itertools import product
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.mux.sizes import CHUNK
from proxy.outbound import call
from proxy.pump.proxyheader import header
from tests.links.wire import Relay
from tests.pump.agents import Mesh, mesh, two_peers
from tests.pump.rig import KINDS, Kind, until
from tests.tools.sockets import connect, free_port


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def reasons(logs: list[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    return [
        (entry["reason"], entry["detail"])
        for entry in logs
        if entry["event"] == "stream ended" and entry["direction"] == "outbound"
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_of_this_host_comes_first(kind: Kind) -> None:
    async with mesh() as hosts:
        near, far = hosts.service("near", kind), hosts.service("far")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": far.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        services = {"echo": {"deliver": near.address}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, services=services)
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await near.accept()
        assert await accepted.read(5) == b"hello"
        assert len(agent.outbound.context.splices) == 1
        assert agent.pools["host-b"].streams == 0
        caller.finish()
        assert await accepted.rest() == (b"", False)
        accepted.close()
        assert await caller.rest() == (b"", False)
        await until(lambda: agent.stats.open == 0, "the end")


async def test_a_peer_is_asked_when_the_service_of_this_host_is_not_there() -> None:
    async with mesh() as hosts:
        far = hosts.service("far")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": far.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        services = {"echo": {"deliver": f"unix:{hosts.folder}/missing"}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, services=services)
        caller = hosts.call()
        await caller.send(b"hello")
        assert await (await far.accept()).read(5) == b"hello"


@pytest.mark.parametrize("early", [b"", b"early bytes", bytes(CHUNK)])
@pytest.mark.parametrize("finished", [False, True])
async def test_the_next_peer_gets_what_the_first_refused(early: bytes, finished: bool) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        await two_peers(hosts, {}, {"echo": {"deliver": service.address}})
        for _ in range(3):
            caller = hosts.call(kind="tcp")
            await caller.send(early)
            if finished:
                caller.finish()
            accepted = await service.accept()
            assert await accepted.read(len(early)) == early
            if finished:
                assert await accepted.rest() == (b"", False)
            else:
                await caller.send(b"more")
                assert await accepted.read(4) == b"more"
            await accepted.send(b"answer")
            assert await caller.read(6) == b"answer"


async def test_all_peers_refuse(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        await two_peers(hosts, {}, {"echo": {"deliver": f"unix:{hosts.folder}/missing"}})
        caller = hosts.call(kind="tcp")
        assert await caller.rest() == (b"", True)
        assert hosts.agents["host-a"].stats.failed == 1
        [(reason, detail)] = reasons(logs)
        assert (reason, detail) in {("no_such_service", "by host-b"), ("connect_failed", "by host-c")}


async def test_a_call_waits_for_a_link() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits={"open_timeout": "20s"}
        )
        callers = [hosts.call() for _ in range(5)]
        for caller in callers:
            await caller.send(b"patience")
        await until(lambda: agent.pools["host-b"].waiting == 5, "five wait")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        for _ in callers:
            assert await (await service.accept()).read(8) == b"patience"
        assert agent.pools["host-b"].waiting == 0


@pytest.mark.failure(8)
async def test_a_call_that_waits_because_the_links_are_full_gets_the_place_of_a_stream_that_ends() -> None:
    async with mesh() as hosts:
        links = {"max_per_peer": 1}
        service = await hosts.pair("tcp", limits={"streams_per_link": 2, "open_timeout": "10m"}, links=links)
        pool = hosts.agents["host-a"].pools["host-b"]
        await until(lambda: pool.up, "the link")
        callers = [hosts.call(kind="tcp") for _ in range(4)]
        accepted = [await service.accept() for _ in range(2)]
        await until(lambda: pool.waiting == 2, "the others wait")
        for number in range(2):
            callers[number].finish()
            accepted[number].finish()
            accepted.append(await service.accept())
            await callers[number + 2].send(b"hello")
            assert await accepted[number + 2].read(5) == b"hello"
        assert pool.waiting == 0


async def test_a_call_waits_so_long(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits={"open_timeout": "50ms"}
        )
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        assert reasons(logs) == [("peer_unreachable", "no link within 0.05 s")]
        assert agent.pools["host-b"].waiting == 0


async def test_a_call_waits_no_longer_where_links_come_up_that_have_no_room_for_it(
    logs: list[MutableMapping[str, Any]],
) -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits={"open_timeout": "300ms"}
        )
        caller = hosts.call(kind="tcp")
        await until(lambda: agent.pools["host-b"].waiting == 1, "it waits")
        while agent.stats.open:
            [waiter] = agent.pools["host-b"]._waiters
            waiter.link_up()
            await trio.sleep(0.05)
        assert reasons(logs) == [("peer_unreachable", "no link within 0.3 s")]
        assert await caller.rest() == (b"", True)


@pytest.mark.failure(19)
async def test_only_so_many_calls_wait(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        limits = {"open_timeout": "20s", "waiting_streams": 2}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits=limits)
        for _ in range(2):
            hosts.call(kind="tcp")
        await until(lambda: agent.pools["host-b"].waiting == 2, "two wait")
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        assert reasons(logs) == [("overloaded", "")]


@pytest.mark.parametrize("state", ["waiting for a link", "connecting", "spliced", "on a link"])
async def test_the_proxy_stops(state: str, logs: list[MutableMapping[str, Any]]) -> None:
    """In every state the caller is told by a reset, and nothing is left (the mesh counts)."""
    async with mesh() as hosts:
        service = hosts.service(backlog=0 if state == "connecting" else 100)
        if state == "connecting":
            hosts.hold(connect(service.address))
        sections: dict[str, Any] = {"upstreams": {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}}
        if state in ("connecting", "spliced"):
            sections["services"] = {"echo": {"deliver": service.address, "connect_timeout": "1s"}}
        if state == "on a link":
            await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **sections)
        caller = hosts.call(kind="tcp")
        if state in ("spliced", "on a link"):
            await caller.send(b"x")
            assert await (await service.accept()).read(1) == b"x"
        await until(lambda: agent.stats.open == 1, "the call")
        hosts.kill("host-a")
        assert await caller.rest() == (b"", True)
        await until(lambda: agent.stats.open == 0, "told")
        assert (CloseReason.STOPPED.label, "") in reasons(logs)


@pytest.mark.failure(6)
async def test_a_link_that_is_lost_is_not_used_again(logs: list[MutableMapping[str, Any]]) -> None:
    """A call that was on it goes on, and so does one right after the loss."""
    async with mesh() as hosts:
        service = await hosts.pair("tcp", limits={"open_timeout": "20s"})
        caller = hosts.call(kind="tcp")
        await caller.send(b"x")
        accepted = await service.accept()
        assert await accepted.read(1) == b"x"
        pool = hosts.agents["host-b"].pools["host-a"]
        [link] = pool.links
        link.doom(CloseReason.LINK_LOST, "cut")
        link.pump.settle()
        await caller.send(b"y")
        another = hosts.call(kind="tcp")
        await another.send(b"again")
        assert await accepted.read(1) == b"y"
        assert await (await service.accept()).read(5) == b"again"
        assert not link.usable


LOST_ANSWERS = ["the connection breaks", "the dialler gives up", "both fall silent"]


@pytest.mark.failure("21c")
@pytest.mark.parametrize("how", LOST_ANSWERS)
@pytest.mark.parametrize(("early", "finished"), [(b"", False), (b"early bytes", True), (bytes(CHUNK), False)])
async def test_calls_on_a_session_that_its_dialler_never_heard_of_go_over_to_the_next(
    how: str, early: bytes, finished: bool
) -> None:
    """host-b dials, and host-a's answer is lost: host-a calls on a session that only it knows."""
    async with mesh() as hosts, Relay(address(hosts, "host-a")).running() as relay:
        service = hosts.service()
        patient, hasty = {"open_timeout": "20s"}, {"ping_interval": "200ms", "ping_timeout": "200ms"}
        links = {"refused_timeout": "1h", **(hasty if how == LOST_ANSWERS[2] else {})}
        nowhere = {"host-b": {"address": f"127.0.0.1:{free_port()}", "services": ["echo"]}}
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        a = await hosts.start("host-a", peers=nowhere, upstreams=upstreams, limits=patient, links=links)
        pool = a.pools["host-b"]
        relay.deaf = True
        way = {"host-a": {"address": relay.address.hostport, "services": ["other"]}}
        waits = {"dial_timeout": "20s" if how == LOST_ANSWERS[0] else "500ms"}
        other = {"other": {"listen": hosts.upstream("host-b", "other")}}
        services = {"echo": {"deliver": service.address}}
        b = await hosts.start("host-b", peers=way, upstreams=other, services=services, links=waits)
        await until(lambda: pool.up, "host-a has answered")
        [first] = pool.sessions
        caller = hosts.call()
        await caller.send(early)
        if finished:
            caller.finish()
        await until(lambda: a.stats.open == 1, "the call")
        if how == LOST_ANSWERS[0]:
            relay.cut()
        elif how == LOST_ANSWERS[2]:
            relay.mute = True
            await until(lambda: first.suspended, "host-a has noticed")
            await until(lambda: b.pools["host-a"].last_error, "host-b has given up")
        else:
            await until(lambda: first.over, "host-a is told")
        relay.deaf = relay.mute = False
        accepted = await service.accept()
        assert await accepted.read(len(early)) == early
        if finished:
            assert await accepted.rest() == (b"", False)
        else:
            await caller.send(b"more")
            assert await accepted.read(4) == b"more"
        await accepted.send(b"answer")
        assert await caller.read(6) == b"answer"
        assert (first.over, first.lost_streams, a.stats.failed, b.stats.opened) == (True, 0, 0, 1)
        assert not a.outbound.context.ejections.held, "nothing speaks against host-b"


def address(hosts: Mesh, name: str) -> TcpAddress:
    host, port = hosts.addresses[name].split(":")
    return TcpAddress(host, int(port))


async def test_a_refused_call_that_waits_for_another_peer_costs_no_processor() -> None:
    """Its caller's bytes are ready all the time, and nobody may take them yet."""
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        peers = hosts.peers(b=["echo"], c=["echo"])
        limits = {"open_timeout": "20s"}
        agent = await hosts.start("host-a", **peers, upstreams=upstreams, limits=limits)
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call(kind="tcp")
        await until(lambda: agent.pools["host-c"].waiting, "refused by host-b, waiting for host-c")
        turns = agent.pump.turns
        await caller.send(b"patience")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert agent.pump.turns - turns <= 3
        service = hosts.service()
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        assert await (await service.accept()).read(8) == b"patience"


@pytest.mark.failure(10)
async def test_a_refused_call_that_waits_for_another_peer_is_told_of_and_ends_with_the_others(
    logs: list[MutableMapping[str, Any]],
) -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        peers = hosts.peers(b=["echo"], c=["echo"])
        agent = await hosts.start("host-a", **peers, upstreams=upstreams, limits={"open_timeout": "20s"})
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call()
        await until(lambda: agent.pools["host-c"].waiting, "refused by host-b, waiting for host-c")
        [told] = agent.view.streams()
        assert (told.state, told.uid, told.pid) == ("waiting", os.getuid(), os.getpid())
        for cut in agent.draining._cuts():
            cut()
        agent.pump.settle()
        assert await caller.rest() == (b"", False)
        assert reasons(logs) == [("stopped", "by host-b")]


async def test_a_refused_call_is_said_again_to_a_peer_that_comes_up_later() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        peers = hosts.peers(b=["echo"], c=["echo"])
        limits = {"open_timeout": "20s"}
        agent = await hosts.start("host-a", **peers, upstreams=upstreams, limits=limits)
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call(kind="tcp")
        await until(lambda: agent.pools["host-c"].waiting, "refused by host-b, waiting for host-c")
        service = hosts.service()
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"


@pytest.mark.parametrize("kind", KINDS)
async def test_rules_hold_for_callers_of_this_host(kind: Kind, logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        services = {
            "echo": {"deliver": service.address, "allow": [{"host": "host-a", "service": "shop"}]},
            "web": {"deliver": service.address, "allow": [{"host": "host-a", "service": "billing"}]},
        }
        upstreams = {
            name: {"listen": hosts.upstream("host-a", name, "unix" if name == "echo" else kind), "caller": "shop"}
            for name in services
        }
        await hosts.start("host-a", services=services, upstreams=upstreams)
        caller = hosts.call()
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"
        assert (await hosts.call(name="web", kind=kind).rest()).received == b""
        uid = f"uid {os.getuid()}" if kind == "unix" else "no uid"
        assert reasons(logs) == [("not_allowed", f"caller shop, {uid}")]


async def test_who_is_not_allowed_here_may_be_elsewhere() -> None:
    """Each host's rules are its own: a refusal is one like any other."""
    async with mesh() as hosts:
        near, far, third = (hosts.service(name) for name in ("near", "far", "third"))
        refusing = {"echo": {"deliver": far.address, "allow": []}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=refusing)
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": third.address}})
        agent = await hosts.start(
            "host-a",
            **hosts.peers(b=["echo"], c=["echo"]),
            upstreams={"echo": {"listen": hosts.upstream("host-a", "echo")}},
            services={"echo": {"deliver": near.address, "allow": []}},
        )
        await until(lambda: all(pool.up for pool in agent.pools.values()), "both links")
        for _ in range(3):
            caller = hosts.call()
            await caller.send(b"hello")
            assert await (await third.accept()).read(5) == b"hello"


@pytest.mark.parametrize(("kind", "to"), list(product(KINDS, KINDS)))
async def test_a_service_of_this_host_is_told_who_calls_before_the_first_byte(kind: Kind, to: Kind) -> None:
    async with mesh() as hosts:
        service = hosts.service(kind=to)
        listen = hosts.upstream("host-a", "echo", kind)
        services = {"echo": {"deliver": service.address, "proxy_protocol": "v2"}}
        upstreams = {"echo": {"listen": listen, "caller": "shop"}}
        agent = await hosts.start("host-a", services=services, upstreams=upstreams)
        caller = hosts.call(kind=kind)
        if kind == "unix":
            own = hosts.addresses["host-a"]
            wanted = header(Open("echo", os.getuid(), "shop"), "host-a", f"{own.partition(':')[0]}:0", own)
        else:
            ends = ("{}:{}".format(*end) for end in (caller.raw.getsockname(), caller.raw.getpeername()))
            wanted = header(Open("echo", UNKNOWN_UID, "shop"), "host-a", *ends)
        await caller.send(b"early")
        accepted = await service.accept()
        assert await accepted.read(len(wanted) + 5) == wanted + b"early"
        await accepted.send(b"answer")
        assert await caller.read(6) == b"answer"
        [splice] = agent.outbound.context.splices
        assert (splice.caller.received, splice.service.received) == (5, 6)


async def test_a_caller_that_is_gone_before_its_service_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = hosts.service()

        def gone(*_: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(call, "header", gone)
        services = {"echo": {"deliver": service.address, "proxy_protocol": "v2"}}
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start("host-a", services=services, upstreams=upstreams)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        assert (await (await service.accept()).rest()).received == b""
        await until(lambda: agent.stats.open == 0, "the end")


REFUSALS: dict[str, dict[str, Any]] = {
    "no such service": {},
    "not allowed": {"services": {"echo": {"deliver": "unix:/nowhere", "allow": []}}},
    "connect failed": {"services": {"echo": {"deliver": "unix:/nowhere"}}},
    "overloaded": {"services": {"echo": {"deliver": "unix:/nowhere"}}, "limits": {"opens_per_second": 1}},
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_every_refusal_is_taken_to_the_next_host(refusal: dict[str, Any]) -> None:
    """With what the caller has said so far, and nothing of it twice."""
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start("host-b", **hosts.peers(a=[]), **refusal)
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=["echo"]), upstreams=upstreams)
        await until(lambda: all(pool.up for pool in agent.pools.values()), "both links")
        for _ in range(8):
            caller = hosts.call(kind="tcp")
            await caller.send(b"said once")
            caller.finish()
            accepted = await service.accept()
            assert await accepted.rest() == (b"said once", False)
            accepted.close()
            assert await caller.rest() == (b"", False)


async def test_a_service_that_does_not_accept_in_time_is_left_for_the_next_host() -> None:
    async with mesh() as hosts:
        stuck, service = hosts.service("stuck", backlog=0), hosts.service()
        hosts.hold(connect(stuck.address))
        slow = {"echo": {"deliver": stuck.address, "connect_timeout": "10ms"}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=slow)
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=["echo"]), upstreams=upstreams)
        await until(lambda: all(pool.up for pool in agent.pools.values()), "both links")
        for _ in range(4):
            await hosts.call().send(b"hello")
            assert await (await service.accept()).read(5) == b"hello"


async def test_only_so_many_hosts_are_asked(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(call, "TRIES", 2)
    async with mesh() as hosts:
        for host in ("host-b", "host-c", "host-d"):
            await hosts.start(host, **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        peers = hosts.peers(b=["echo"], c=["echo"], d=["echo"])
        agent = await hosts.start("host-a", **peers, upstreams=upstreams)
        await until(lambda: all(pool.up for pool in agent.pools.values()), "all links")
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        assert sum(agent.stats.failed for host, agent in hosts.agents.items() if host != "host-a") == 2
        assert reasons(logs)[0][0] == "no_such_service"


@pytest.mark.failure(11)
async def test_a_host_that_cannot_be_reached_counts_as_failed() -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        limits = {"open_timeout": "20ms"}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits=limits)
        for _ in range(5):
            assert await hosts.call(kind="tcp").rest() == (b"", True)
        assert agent.outbound.context.ejected("echo") == {"host-b"}
