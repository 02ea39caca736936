"""Delivering what peers open where that takes time, and every way in which it fails."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.inbound.test_delivery import ended
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.tools.sockets import connect


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


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
        await until(lambda: agent.stats.open == hosts.agents["host-b"].stats.open == 0, "the end")
        assert ended(logs, "inbound") == [("connect_failed", detail)]
        assert ended(logs, "outbound") == [("connect_failed", "by host-b")]
        assert agent.stats.failed == 1


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
        await until(lambda: far.stats.open, "the call")
        caller.abort()
        await until(lambda: not far.stats.open, "the end")


async def test_a_change_of_what_is_offered_is_for_later_streams() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        far = hosts.agents["host-b"]
        assert far.inbound.offers("echo")
        far.inbound.anew("echo")
        far.inbound.forget("host-a")
        await accepted.send(b"still here")
        assert (await caller.read(10), far.inbound.open["echo"].count) == (b"still here", 1)
