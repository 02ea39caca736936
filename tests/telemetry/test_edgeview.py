"""Edges of whole proxies, as their admin socket tells them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from control.api.messages import EdgeInfo
from proxy.telemetry import edgeview
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until

CALLER = f"uid {os.getuid()}"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about how long it takes."""
    monkeypatch.setattr(edgeview, "FIRST", 0.001)
    monkeypatch.setattr(edgeview, "RECENT", 0.0)


async def told(hosts: Mesh, host: str) -> list[EdgeInfo]:
    return (await hosts.agents[host].view.edges()).edges


async def exchange(hosts: Mesh, service: Any) -> Any:
    """One stream: five bytes there, six back."""
    caller = hosts.call()
    await caller.send(b"hello")
    accepted = await service.accept()
    assert await accepted.read(5) == b"hello"
    await accepted.send(b"worlds")
    assert await caller.read(6) == b"worlds"
    return caller


async def test_both_hosts_tell_of_the_same_edge() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
        (await exchange(hosts, service)).close()
        await until(lambda: not any(agent.stats.open for agent in hosts.agents.values()), "the end")
        second = await exchange(hosts, service)
        for host, direction in (("host-a", "outbound"), ("host-b", "inbound")):
            [edge] = await told(hosts, host)
            assert (edge.caller, edge.caller_host, edge.service, edge.host) == (CALLER, "host-a", "echo", "host-b")
            assert (edge.direction, edge.streams, edge.opened, edge.failed) == (direction, 1, 2, 0)
            assert (edge.sent, edge.received) == (10, 12), "bytes of the open one are counted"
            assert (edge.reason, edge.failing_s) == (None, None)
        second.close()


async def test_nothing_decreases_when_a_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        caller = await exchange(hosts, service)
        [before] = await told(hosts, "host-a")
        caller.close()
        await until(lambda: not hosts.agents["host-a"].stats.open, "the end")
        [after] = await told(hosts, "host-a")
        assert (before.sent, before.received, before.streams) == (5, 6, 1)
        assert (after.sent, after.received, after.streams) == (5, 6, 0)
        assert min(after.sent_per_s, after.received_per_s, after.opened_per_s, after.failed_per_s) >= 0


async def test_a_service_of_the_same_host() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "caller": "shop"}}
        await hosts.start("host-a", upstreams=upstreams, services={"echo": {"deliver": service.address}})
        await exchange(hosts, service)
        [edge] = await told(hosts, "host-a")
        assert (edge.caller, edge.caller_host, edge.host, edge.direction) == ("shop", "host-a", "host-a", "local")
        assert (edge.streams, edge.sent, edge.received) == (1, 5, 6)


async def test_a_service_that_is_down_and_comes_back() -> None:
    async with mesh() as hosts:
        missing = f"unix:{hosts.folder}/echo.service"
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": missing}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        await hosts.call().rest()
        for host in ("host-a", "host-b"):
            [edge] = await told(hosts, host)
            assert (edge.host, edge.opened, edge.failed, edge.streams) == ("host-b", 1, 1, 0)
            assert edge.reason == "connect_failed"
            assert edge.failing_s is not None
        service = hosts.service()
        hosts.agents["host-a"].outbound.context.ejections.forget("host-b")
        await exchange(hosts, service)
        for host in ("host-a", "host-b"):
            [edge] = await told(hosts, host)
            assert (edge.opened, edge.failed, edge.failing_s, edge.reason) == (2, 1, None, "connect_failed")


async def test_a_call_that_no_host_takes() -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        sections = {"limits": {"open_timeout": "10ms"}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, **sections)
        await hosts.call().rest()
        [edge] = await told(hosts, "host-a")
        assert (edge.host, edge.opened, edge.failed, edge.reason) == (None, 1, 1, "peer_unreachable")


async def test_who_asks_again_at_once_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        await exchange(hosts, service)
        first = await told(hosts, "host-a")
        monkeypatch.setattr(edgeview, "RECENT", 30.0)
        await exchange(hosts, service)
        assert [edge.opened for edge in await told(hosts, "host-a")] == [edge.opened for edge in first] == [1]
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(told, hosts, "host-a")
