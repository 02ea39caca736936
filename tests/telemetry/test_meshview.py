"""A proxy that follows a control plane, and what it tells about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from control.api.mesh import HostRecord, MapChanges, RegisterResponse
from proxy.agent.agent import Agent
from proxy.routing import explain
from tests.mesh.plane import Plane, snapshot
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class Registry(Plane):
    """One that tells everybody what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, HostRecord] = {}
        self.first = snapshot()

    async def register(
        self, record: HostRecord, *, secret: str = "", before: str = "", yields: bool = False
    ) -> RegisterResponse:
        await super().register(record)
        self.hosts[record.name] = record
        self.told(put=(record,))
        return RegisterResponse(epoch=self.epoch, revision=self.revision, lease=self.lease)

    async def leave(self, name: str, instance: str) -> None:
        await super().leave(name, instance)
        self.hosts.pop(name, None)
        self.told(gone=(name,))

    def told(self, **what: Any) -> None:
        self.revision += 1
        self.say(MapChanges(revision=self.revision, **what))
        self.first = snapshot(*self.hosts.values(), epoch=self.epoch, revision=self.revision)


async def start(hosts: Mesh, host: str, plane: Plane, **sections: Any) -> Agent:
    control = {"servers": ["10.0.0.9:7601"], "state_dir": str(hosts.folder / f"{host}-state")}
    return await hosts.start(host, plane, control=control, **sections)


def socket_of(agent: Agent, service: str) -> Path:
    return Path(agent.config.socket_dir) / f"{service}.sock"


async def test_a_service_appears_is_called_and_disappears() -> None:
    plane = Registry()
    async with mesh(mtls=True) as hosts:
        service = hosts.service()
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        a = await start(hosts, "host-a", plane, upstreams=upstreams, all_upstreams={})
        assert a.view.services()[0].why == explain.NOBODY
        services = {"echo": {"deliver": service.address}, "web": {"deliver": "unix:/w"}}
        b = await start(hosts, "host-b", plane, services=services)
        await until(lambda: socket_of(a, "web").is_socket(), "the socket of all")
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"

        own, other = a.view.hosts()
        assert (own.name, own.state, own.services) == ("host-a", "here", [])
        assert (other.name, other.state, other.services, other.static) == ("host-b", "up", ["echo", "web"], False)
        echo, web = a.view.services()
        assert (echo.service, echo.takes, echo.why) == ("echo", ["host-b"], explain.ONE)
        assert (web.service, web.listen) == ("web", f"unix:{socket_of(a, 'web')}")
        [found] = echo.candidates
        assert (found.address, found.state, found.streams) == (hosts.addresses["host-b"], "up", 1)
        status = a.view.status().control
        assert status is not None
        assert (status.server, status.hosts, status.registered, status.unconfirmed) == ("plane", 2, True, [])
        assert status.servers == ["10.0.0.9:7601"]
        assert status.left_out == {}
        assert status.age_s is not None

        assert b.member is not None
        await b.member.leave(handed_over=False)
        await until(lambda: not socket_of(a, "web").exists(), "the end of the socket")
        assert a.view.services()[0].takes == []
        await caller.send(b"still")
        assert await accepted.read(5) == b"still"


async def test_one_that_leaves_says_so() -> None:
    plane = Registry()
    async with mesh(mtls=True) as hosts:
        a = await start(hosts, "host-a", plane)
        await plane.asked("register")
        assert a.member is not None
        await a.member.leave(handed_over=True)
        assert plane.count("leave") == 0, "its successor is there"
        await a.member.leave(handed_over=False)
        assert plane.calls[-1][:2] == ("leave", "host-a")


async def test_a_start_without_the_control_plane(logs: list[MutableMapping[str, Any]]) -> None:
    plane = Plane()
    plane.down = True
    async with mesh(mtls=True) as hosts:
        a = await start(hosts, "host-a", plane, **hosts.peers(b=["echo"]), all_upstreams={})
        assert socket_of(a, "echo").is_socket(), "what is static is there"
        [route] = a.view.services()
        assert [each.static for each in route.candidates] == [True]
        await plane.asked("watch")
        status = a.view.status().control
        assert status is not None
        assert (status.server, status.age_s, status.registered) == (None, None, False)
        assert [entry["event"] for entry in logs if "no map yet" in entry["event"]]


async def test_all_upstreams_dial_nobody_before_they_are_called() -> None:
    plane = Registry()
    async with mesh(mtls=True) as hosts:
        service = hosts.service()
        await start(hosts, "host-b", plane, services={"echo": {"deliver": service.address}})
        a = await start(hosts, "host-a", plane, all_upstreams={})
        await until(lambda: socket_of(a, "echo").is_socket(), "the socket")
        assert a.pools["host-b"].dials == 0


async def test_without_a_control_plane() -> None:
    async with mesh(mtls=True) as hosts:
        await hosts.pair()
        view = hosts.agents["host-a"].view
        assert view.status().control is None
        assert [host.static for host in view.hosts()] == [False, True]
        assert view.services()[0].takes == ["host-b"]


async def test_who_was_refused_and_by_which_rule() -> None:
    async with mesh() as hosts:
        services = {"echo": {"deliver": hosts.service().address, "allow": [{"host": "host-a", "uid": 4711}]}}
        agent = await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "caller": "shop"}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        for _ in range(3):
            await hosts.call().rest()
        [route] = agent.view.services()
        [refused] = route.refused
        assert (refused.host, refused.caller, refused.uid, refused.times) == ("host-a", "shop", os.getuid(), 3)
        assert refused.reason == "not_allowed"
        assert refused.rule == f"services.echo.allow: nearest is host host-a, uid 4711, but its uid is {os.getuid()}"
        assert 0 <= refused.last_s <= refused.first_s


async def test_who_was_refused_within_a_host() -> None:
    async with mesh() as hosts:
        services = {"echo": {"deliver": hosts.service().address, "allow": [{"uid": 4711}]}}
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", upstreams=upstreams, services=services)
        await hosts.call().rest()
        [route] = agent.view.services()
        assert [(each.host, each.caller, each.times) for each in route.refused] == [("host-a", None, 1)]
        agent.apply(msgspec.structs.replace(agent.config, services={}))
        agent.apply(agent.config)
        assert not agent.view.services()[0].refused
