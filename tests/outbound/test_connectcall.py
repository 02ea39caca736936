"""Calls through the CONNECT socket: the answer comes when the call is delivered, before the service's first byte."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.mux.sizes import CHUNK
from proxy.pump.proxyheader import header
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import KINDS, End, Kind, until

HEAD = b"CONNECT echo:7 HTTP/1.1\r\nHost: echo\r\n\r\n"
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect_to(hosts: Mesh, kind: Kind, services: Any = "all", **more: Any) -> dict[str, Any]:
    """The section of host-a."""
    return {"connect": {"listen": hosts.upstream("host-a", "connect", kind), "services": services, **more}}


def caller_of(hosts: Mesh, kind: Kind) -> End:
    return hosts.call(name="connect", kind=kind)


async def refused(caller: End) -> tuple[int, str, bool]:
    """Status, close reason, and whether the connection was reset."""
    answer, reset = await caller.rest()
    head, _, _ = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    found = dict(line.split(": ", 1) for line in headers)
    return int(status.split()[1]), found.get("hostlane-close-reason", ""), reset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early", [b"", b"early bytes", bytes(2 * CHUNK)])
async def test_through_a_link(kind: Kind, early: bytes) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **connect_to(hosts, kind))
        caller = caller_of(hosts, kind)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.send, HEAD + early)
            accepted = await service.accept()
            assert await accepted.read(len(early)) == early
        await accepted.send(b"answer")
        assert await caller.read(len(OK) + 6) == OK + b"answer"
        await caller.send(b"more")
        assert await accepted.read(4) == b"more"
        caller.finish()
        assert await accepted.rest() == (b"", False)
        await accepted.send(b"last")
        accepted.finish()
        assert await caller.rest() == (b"last", False)
        await until(lambda: agent.stats.open == 0, "the end")
        assert agent.outbound.connect.open == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_answer_before_the_service_has_the_call(kind: Kind) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), **connect_to(hosts, kind), limits={"open_timeout": "1m"}
        )
        caller = caller_of(hosts, kind)
        await caller.send(HEAD + b"hello")
        await until(lambda: agent.pools["host-b"].waiting == 1, "it waits for a link")
        with pytest.raises(BlockingIOError):
            caller.raw.recv(1)
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        assert await (await service.accept()).read(5) == b"hello"
        assert await caller.read(len(OK)) == OK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [True, False])
async def test_within_this_host(kind: Kind, told: bool) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        offered = {"deliver": service.address, "proxy_protocol": "v2" if told else "none"}
        agent = await hosts.start("host-a", **connect_to(hosts, kind, caller="shop"), services={"echo": offered})
        caller = caller_of(hosts, kind)
        await caller.send(HEAD + b"hello")
        accepted = await service.accept()
        await accepted.send(b"answer")
        assert await caller.read(len(OK) + 6) == OK + b"answer"
        if told:
            [call] = agent.outbound.context.splices.values()
            if kind == "tcp":
                ends = [
                    TcpAddress(*address).hostport for address in (caller.raw.getsockname(), caller.raw.getpeername())
                ]
            else:
                ends = [TcpAddress(agent.config.links.listen.host, 0).hostport, agent.config.links.listen.hostport]
            expected = header(call._request, "host-a", *ends)
            assert await accepted.read(len(expected)) == expected
        assert await accepted.read(5) == b"hello"
        caller.finish()
        assert await accepted.rest() == (b"", False)
        accepted.close()
        assert await caller.rest() == (b"", False)
        await until(lambda: agent.stats.open == 0, "the end")
        assert agent.outbound.connect.open == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["here", "far"])
async def test_services_that_are_not_there(kind: Kind, where: str) -> None:
    async with mesh() as hosts:
        missing = {"services": {"echo": {"deliver": f"unix:{hosts.folder}/missing"}}}
        await hosts.start("host-b", **hosts.peers(a=[]), **({} if where == "here" else missing))
        mine = missing if where == "here" else {}
        peers = hosts.peers(b=[] if where == "here" else ["echo"])
        agent = await hosts.start("host-a", **peers, **connect_to(hosts, kind), **mine)
        caller = caller_of(hosts, kind)
        await caller.send(HEAD + b"bytes that nobody reads")
        assert await refused(caller) == (503, "connect_failed", False)
        await until(lambda: agent.outbound.connect.open == 0, "the end")


@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_call(kind: Kind) -> None:
    """Rules are those of callers at upstreams: name, host, and the uid of callers at Unix sockets."""
    async with mesh() as hosts:
        service = hosts.service()
        rules = {"mine": [{"service": "shop"}], "uid": [{"uid": os.geteuid()}], "echo": [{"service": "bank"}]}
        offered = {name: {"deliver": service.address, "allow": allow} for name, allow in rules.items()}
        await hosts.start("host-b", **hosts.peers(a=[]), services=offered)
        await hosts.start("host-a", **hosts.peers(b=list(rules)), **connect_to(hosts, kind, caller="shop"))
        found = {}
        for name in rules:
            caller = caller_of(hosts, kind)
            await caller.send(HEAD.replace(b"echo:", name.encode() + b":"))
            if name == "mine" or (name == "uid" and kind == "unix"):
                await service.accept()
                assert await caller.read(len(OK)) == OK
            else:
                found[name] = await refused(caller)
        assert found == dict.fromkeys(["echo"] if kind == "unix" else ["uid", "echo"], (403, "not_allowed", False))


async def test_a_link_that_is_lost_before_the_answer() -> None:
    async with mesh() as hosts:
        service = hosts.service(backlog=0)
        links = {"refused_timeout": "50ms", "resume_timeout": "100ms"}
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **connect_to(hosts, "tcp"), links=links)
        callers = []
        for _ in range(4):  # more than the service's backlog takes
            callers.append(caller_of(hosts, "tcp"))
            await callers[-1].send(HEAD)
        await until(lambda: agent.pools["host-b"].streams == 4, "they are asked for")
        await until(lambda: agent.stats.opened == 4, "they are calls")
        hosts.kill("host-b")
        last = [await caller.rest() for caller in callers]
        assert not any(reset for answer, reset in last if not answer.startswith(OK))
        assert any(b" 50" in answer for answer, _ in last), last
