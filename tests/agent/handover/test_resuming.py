"""Links that break while a process which was taken over lets its streams finish: whichever side dialled, the streams go
on, byte for byte, with the process that has them. (Real processes and cut connections: tests/system/test_takeover.)
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent.agent import Agent
from proxy.agent.handover import sockets as sockets_module
from proxy.config.memory import MIB
from proxy.links import carry
from tests.pump.agents import Mesh, Service, mesh
from tests.pump.rig import End, until

pytestmark = pytest.mark.failure("24")

PATIENT = {"limits": {"stop_timeout": "20s", "open_timeout": "20s"}}


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class Stream(msgspec.Struct):
    """A stream from host-a to a service of host-b."""

    caller: End
    service: End

    async def exchange(self, data: bytes) -> None:
        """The bytes and their reverse go through, and nothing else was on the way."""
        await self.caller.send(data)
        assert await self.service.read(len(data)) == data
        await self.service.send(data[::-1])
        assert await self.caller.read(len(data)) == data[::-1]


async def stream(hosts: Mesh, service: Service) -> Stream:
    caller = hosts.call()
    await caller.send(b"first")
    accepted = await service.accept()
    assert await accepted.read(5) == b"first"
    return Stream(caller, accepted)


def sections(hosts: Mesh, host: str, service: Service) -> dict[str, Any]:
    """The configuration of a host of `Mesh.pair`, once more."""
    if host == "host-a":
        return {
            **hosts.peers(b=["echo"]),
            "upstreams": {"echo": {"listen": hosts.upstream("host-a", "echo")}},
            **PATIENT,
        }
    return {**hosts.peers(a=[]), "services": {"echo": {"deliver": service.address}}, **PATIENT}


async def taken_over(hosts: Mesh, host: str, service: Service) -> tuple[Agent, Agent]:
    """A process of this host takes another one's place: the old one, and the new one."""
    old = await hosts.takeover(host, sections(hosts, host, service))
    await until(lambda: old.draining.began, "it has let go")
    for kept in (hosts.agents, hosts._scopes):
        kept[f"{host} {id(old)}"] = kept.pop(f"{host} old")
    return old, hosts.agents[host]


def cut(agent: Agent, peer: str) -> int:
    """The connections of all its links to a peer are gone. Returns how many."""
    links = agent.pools[peer].links
    for link in list(links):
        link._sock.shutdown(socket.SHUT_RDWR)
    return len(links)


def resumed(agent: Agent, peer: str) -> int:
    return agent.pools[peer].sessions.resumed


@pytest.mark.parametrize("mtls", [False, True])
@pytest.mark.parametrize("taken", ["host-a", "host-b"], ids=["the caller's proxy", "the service's proxy"])
async def test_streams_survive_a_link_that_breaks_during_the_drain(
    taken: str, mtls: bool, logs: list[MutableMapping[str, Any]]
) -> None:
    """host-a dials: once the process that was taken over is the dialler, once the acceptor."""
    async with mesh(mtls=mtls) as hosts:
        service = await hosts.pair(**PATIENT)
        other = "host-b" if taken == "host-a" else "host-a"
        kept = await stream(hosts, service)
        old, new = await taken_over(hosts, taken, service)
        fresh = await stream(hosts, service)
        for number in range(1, 4):
            assert cut(old, other) == 1
            await kept.exchange(b"%d" % number * 50_000)
            await until(lambda number=number: resumed(old, other) == number, "it goes on")  # type: ignore[misc]
        await fresh.exchange(b"through the new one")
        assert (old.stats.open, new.stats.open) == (1, 1)
        passed = [entry for entry in logs if entry["event"] == "link passed on"]
        assert len(passed) == (3 if taken == "host-b" else 0)
        assert {entry["instance"] for entry in passed} <= {old._instance}
        kept.caller.close()
        kept.service.close()
        await old.draining.over.wait()
        assert old.draining.cut == 0
        await fresh.exchange(b"still")


@pytest.mark.parametrize("mtls", [False, True])
async def test_both_of_two_that_drain(mtls: bool) -> None:
    """Each gets its own links, through the one process that accepts."""
    async with mesh(mtls=mtls) as hosts:
        service = await hosts.pair(**PATIENT)
        streams, old = [], []
        for _ in range(2):
            streams.append(await stream(hosts, service))
            old.append((await taken_over(hosts, "host-b", service))[0])
        streams.append(await stream(hosts, service))
        assert cut(hosts.agents["host-a"], "host-b") == 3
        for each in streams:
            await each.exchange(b"x" * 100_000)
        await until(lambda: [resumed(each, "host-a") for each in old] == [1, 1], "each goes on")


async def test_a_link_that_broke_before_the_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer has had no GOAWAY: it hears from the new process that the old one is still there."""
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        kept = await stream(hosts, service)
        dials, real = trio.Event(), carry.connect

        async def connect(*args: Any) -> trio.SocketStream:
            await dials.wait()
            return await real(*args)

        monkeypatch.setattr(carry, "connect", connect)
        cut(near, "host-b")
        await until(lambda: len(far.pools["host-a"].sessions.suspended) == 1, "it is lost")
        # The caller's proxy, which dials, is replaced: the new process is heard of first.
        old, new = await taken_over(hosts, "host-a", service)
        monkeypatch.setattr(carry, "connect", real)
        fresh = await stream(hosts, service)
        assert new.stats.open == 1
        dials.set()
        await kept.exchange(b"after all")
        assert resumed(old, "host-b") == 1
        await fresh.exchange(b"and this")


@pytest.mark.parametrize("mtls", [False, True])
async def test_a_peer_of_an_earlier_version_marks_nothing(mtls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke is lost then, as it was before, and nothing else is."""
    monkeypatch.setattr("proxy.pool.dialling.is_instance", lambda text: False)
    async with mesh(mtls=mtls) as hosts:
        service = await hosts.pair(**PATIENT)
        kept = await stream(hosts, service)
        _, new = await taken_over(hosts, "host-b", service)
        cut(hosts.agents["host-a"], "host-b")
        assert (await kept.caller.rest()).received == b""
        fresh = await stream(hosts, service)
        await fresh.exchange(b"as ever")
        assert new.stats.open == 1


async def test_a_process_that_was_killed_resumes_nothing() -> None:
    """Its leash is closed: the streams end at once, as ever."""
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        kept = await stream(hosts, service)
        old, new = await taken_over(hosts, "host-b", service)
        hosts.kill(next(name for name in hosts.agents if hosts.agents[name] is old))
        assert (await kept.caller.rest()).received == b""
        await (await stream(hosts, service)).exchange(b"new")
        assert new._earlier.instances == ()


async def test_after_the_newest_has_crashed_the_next_one_finds_those_that_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They keep their streams, their links reach them, and there are two of them at most."""
    monkeypatch.setattr(sockets_module, "HURRY", 0.2)
    async with mesh(mtls=True) as hosts:
        service = await hosts.pair(**PATIENT)
        streams, old = [], []
        for _ in range(2):
            streams.append(await stream(hosts, service))
            old.append((await taken_over(hosts, "host-b", service))[0])
        hosts.kill("host-b")
        hosts.agents["host-b dead"] = hosts.agents.pop("host-b")
        await until(lambda: not (hosts.folder / "host-b" / ".admin.sock.lock").exists(), "it is gone")
        await streams[0].exchange(b"before the start")
        new = await hosts.start("host-b", **sections(hosts, "host-b", service))
        assert new._earlier.instances == tuple(each._instance for each in old)
        cut(hosts.agents["host-a"], "host-b")
        for each in streams:
            await each.exchange(b"x" * 100_000)
        streams.append(await stream(hosts, service))
        # One more: the oldest must go, though the process that had its leash crashed.
        await taken_over(hosts, "host-b", service)
        await old[0].draining.over.wait()
        assert (await streams[0].caller.rest()).received == b""
        for each in streams[1:]:
            await each.exchange(b"still there")


@pytest.mark.failure("33")
async def test_limits_memory_is_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old one holds for a reader that has stopped the new one does not have."""
    whole = 32 * MIB
    monkeypatch.setitem(PATIENT, "limits", {**PATIENT["limits"], "memory": "32MiB", "stream_credit": "4MiB"})
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        far = hosts.agents["host-b"]
        kept = await stream(hosts, service)
        flood = bytes(8 * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.caller.send, flood)
            await until(lambda: far.pump.budget.used > 3 * MIB, "the reader has stopped")
            old, new = await taken_over(hosts, "host-b", service)
            holds, limit = old.pump.budget, new.pump.budget
            await until(lambda: holds.limit == holds.used + (whole - holds.used) // 2, "its share")
            await until(lambda: whole - 1 <= limit.limit + holds.limit <= whole, "they share")
            assert limit.per_peer == limit.limit // 2
            assert await kept.service.read(len(flood)) == flood, "nothing is lost by it"
        kept.caller.close()
        kept.service.close()
        await old.draining.over.wait()
        await until(lambda: new.pump.budget.limit == whole, "all of it is the new one's")
