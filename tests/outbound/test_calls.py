"""What calls share: which hosts are left alone because calls failed there, and which one a call gets."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.outbound import calls
from tests.pump.agents import mesh, two_peers
from tests.pump.rig import until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def test_a_host_that_fails_is_ejected_and_comes_back_when_it_delivers(
    logs: list[MutableMapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(calls, "monotonic", lambda: now)
    async with mesh() as hosts:
        service = hosts.service("good")
        await two_peers(
            hosts, {"echo": {"deliver": f"unix:{hosts.folder}/bad.service"}}, {"echo": {"deliver": service.address}}
        )
        outbound = hosts.agents["host-a"].outbound

        async def one_call() -> None:
            await hosts.call(kind="tcp").send(b"x")
            assert await (await service.accept()).read(1) == b"x"

        for _ in range(200):
            await one_call()
            if outbound.context.ejected("echo"):
                break
        assert outbound.context.ejected("echo") == {"host-b"}
        [entry] = [entry for entry in logs if entry["event"] == "host ejected"]
        assert (entry["offered_by"], entry["reason"], entry["for_s"]) == ("host-b", "connect_failed", 30)
        refused = hosts.agents["host-b"].stats.failed
        for _ in range(20):
            await one_call()
        assert hosts.agents["host-b"].stats.failed == refused, "left alone"
        now = 31.0
        late = hosts.service("bad")
        caller = hosts.call(kind="tcp")
        for _ in range(200):
            await caller.send(b"x")
            with trio.move_on_after(0.01):
                await (await late.accept()).read(1)
                break
            caller = hosts.call(kind="tcp")
        await until(lambda: outbound.context.ejections.record("echo", "host-b") is None, "nothing held against it")


async def test_the_service_of_this_host_is_passed_over_when_it_fails_and_a_peer_does_not() -> None:
    async with mesh() as hosts:
        far = hosts.service("far")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": far.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        services = {"echo": {"deliver": f"unix:{hosts.folder}/missing"}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, services=services)
        await until(lambda: agent.pools["host-b"].up, "the link")
        for _ in range(5):
            await hosts.call().send(b"hello")
            assert await (await far.accept()).read(5) == b"hello"
        assert agent.outbound.context.ejected("echo") == {"host-a"}
        assert agent.outbound.context.endpoints("echo")[0] is None
        hosts.kill("host-b")
        await until(lambda: not agent.pools["host-b"].up, "the loss")
        assert agent.outbound.context.endpoints("echo")[0] is not None, "nobody else is there"
