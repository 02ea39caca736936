"""Delivering what peers open, and every way in which that fails."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.pump.agents import mesh
from tests.pump.rig import KINDS, Kind, until
from tests.tools.sockets import connect


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def ended(logs: list[MutableMapping[str, Any]], direction: str) -> list[tuple[str, str]]:
    return [
        (entry["reason"], entry["detail"])
        for entry in logs
        if entry["event"] == "stream ended" and entry["direction"] == direction
    ]


@pytest.mark.failure(2, 16)
@pytest.mark.parametrize("kind", KINDS)
async def test_delivered(kind: Kind) -> None:
    async with mesh() as hosts:
        service = await hosts.pair(to=kind)
        caller = hosts.call()
        accepted = await service.accept()
        await accepted.send(b"speaks first")
        assert await caller.read(12) == b"speaks first"
        agent = hosts.agents["host-b"]
        assert agent.inbound.open["echo"] == agent.tally.open == 1
        caller.finish()
        assert await accepted.rest() == (b"", False)
        await accepted.send(b"answer")
        accepted.close()
        assert await caller.rest() == (b"answer", False)
        await until(lambda: agent.tally.open == 0, "the end")
        assert not any(agent.inbound.open.values())
        assert agent.tally.failed == 0


@pytest.mark.parametrize(
    ("deliver", "detail"), [("missing", "No such file or directory"), ("dead", "Connection refused")]
)
async def test_a_service_that_is_not_there(deliver: str, detail: str, logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        hosts.service("dead").raw.close()
        services = {"echo": {"deliver": f"unix:{hosts.folder}/{deliver}.service"}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        await until(lambda: agent.tally.open == hosts.agents["host-b"].tally.open == 0, "the end")
        assert ended(logs, "inbound") == [("connect_failed", detail)]
        assert ended(logs, "outbound") == [("connect_failed", "by host-b")]
        assert agent.tally.failed == 1


async def test_a_service_that_the_peer_does_not_offer(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        await until(lambda: ended(logs, "outbound") and ended(logs, "inbound"), "the end")
        assert ended(logs, "inbound")[0][0] == "no_such_service"
        assert ended(logs, "outbound") == [("no_such_service", "by host-b")]


async def test_a_service_that_does_not_accept(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = hosts.service(backlog=0)
        hosts.hold(connect(service.address))
        services = {"echo": {"deliver": service.address, "connect_timeout": "50ms"}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        await until(lambda: ended(logs, "inbound"), "the end")
        assert ended(logs, "inbound") == [("connect_timeout", "its backlog was full for 0.05 s")]


@pytest.mark.failure(1)
async def test_a_caller_that_leaves_while_its_service_is_beingconnect() -> None:
    """Nothing is left of the attempt (the mesh counts)."""
    async with mesh() as hosts:
        service = hosts.service(backlog=0)
        hosts.hold(connect(service.address))
        services = {"echo": {"deliver": service.address, "connect_timeout": "1s"}}
        far = await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        caller = hosts.call(kind="tcp")
        await until(lambda: far.tally.open, "the call")
        caller.abort()
        await until(lambda: not far.tally.open, "the end")


@pytest.mark.failure(18)
async def test_a_bug_in_delivering_one_stream_costs_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp")
        first = hosts.call(kind="tcp")
        accepted = await service.accept()
        connector = hosts.agents["host-b"].connector

        def fail(*args: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(connector, "connect", fail)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        monkeypatch.undo()
        await first.send(b"still here")
        assert await accepted.read(10) == b"still here"
        second = hosts.call(kind="tcp")
        await second.send(b"and others")
        assert await (await service.accept()).read(10) == b"and others"
