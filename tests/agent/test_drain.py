"""The end of a proxy: who may finish, who is cut and when, who is told."""

from __future__ import annotations

import itertools
import os
import socket
from collections import Counter
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.api.messages import DrainProgress, StreamHolder, StreamInfo
from proxy.agent import drain
from proxy.agent.agent import Agent
from proxy.agent.drain import describe, holders, who
from proxy.errors import CloseReason
from proxy.pool import staggeredclose
from tests.pump.agents import Mesh, Service, mesh
from tests.pump.rig import End, Kind, until

pytestmark = pytest.mark.failure(10)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def carried(hosts: Mesh, service: Service, count: int = 1, kind: Kind = "tcp") -> tuple[list[End], list[End]]:
    """Callers on host-a, and the service's ends."""
    callers = [hosts.call(kind=kind) for _ in range(count)]
    return callers, [await service.accept() for _ in callers]


async def taken_by(*services: Service) -> tuple[Service, End]:
    """Which of the services gets the next call, and its end there."""
    found: list[tuple[Service, End]] = []

    async def take(service: Service, scope: trio.CancelScope) -> None:
        found.append((service, await service.accept()))
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for each in services:
            nursery.start_soon(take, each, nursery.cancel_scope)
    return found[0]


async def test_it_waits_for_the_last_stream() -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        agent = hosts.agents["host-a"]
        [caller], [accepted] = await carried(hosts, service)
        agent.draining.begin(20)
        peer = hosts.agents["host-b"].pools["host-a"]
        await until(lambda: peer.links[0].leaving, "GOAWAY")
        assert agent.view.status().draining
        assert 0 < (agent.view.status().drain_left_s or 0) <= 20
        await caller.send(b"x")
        assert await accepted.read(1) == b"x"
        for end in (caller, accepted):
            end.finish()
        assert await caller.rest() == (b"", False)
        await agent.draining.over.wait()
        assert agent.draining.cut == 0


@pytest.mark.failure(3, 7, 10)
async def test_last_bytes_that_wait_for_another_link_are_waited_for() -> None:
    """The stream has ended as seen from here, but the cable was out when it did."""
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        [caller], [accepted] = await carried(hosts, service)
        accepted.finish()
        assert await caller.rest() == (b"", False)
        assert far._handover_sockets is not None
        far._handover_sockets.links_gate.close()
        near.pools["host-b"].links[0]._sock.shutdown(socket.SHUT_RDWR)
        await until(lambda: bool(near.pools["host-b"].sessions.suspended), "the loss")
        await caller.send(b"last words")
        caller.finish()
        await until(lambda: near.stats.open == 0, "the end, as seen from here")
        near.draining.begin(20)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not near.draining.over.is_set()
        far._handover_sockets.links_gate.open()
        assert await accepted.rest() == (b"last words", False)
        await near.draining.over.wait()


async def test_a_peer_that_is_lost_and_is_owed_nothing_is_not_waited_for() -> None:
    async with mesh() as hosts:
        await hosts.pair()
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        await until(lambda: near.pools["host-b"].up, "the link")
        assert far._handover_sockets is not None
        far._handover_sockets.links_gate.close()
        near.pools["host-b"].links[0]._sock.shutdown(socket.SHUT_RDWR)
        await until(lambda: bool(near.pools["host-b"].sessions.suspended), "the loss")
        near.draining.begin(3600)
        await near.draining.over.wait()


@pytest.mark.failure(8, 10)
async def test_a_call_that_waits_for_a_link_gets_it() -> None:
    """Also when a proxy is replaced: nobody but the old process has the caller's connection."""
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        await until(lambda: near.pools["host-b"].up, "the link")
        assert far._handover_sockets is not None
        far._handover_sockets.links_gate.close()
        near.pools["host-b"].links[0].doom(CloseReason.STOPPED)
        near.pump.settle()
        caller = hosts.call(kind="tcp")
        await until(lambda: near.pools["host-b"].waiting == 1, "the call waits")
        near.draining.begin(20)
        await trio.testing.wait_all_tasks_blocked(0.01)
        far._handover_sockets.links_gate.open()
        with trio.fail_after(2):
            accepted = await service.accept()
        await caller.send(b"hello")
        assert await accepted.read(5) == b"hello"
        for end in (caller, accepted):
            end.finish()
        assert await caller.rest() == (b"", False)
        await near.draining.over.wait()
        assert near.draining.cut == 0


async def test_it_is_over_at_once_when_nothing_is_open() -> None:
    async with mesh() as hosts:
        await hosts.pair()
        agent = hosts.agents["host-a"]
        agent.draining.begin(3600)
        await agent.draining.over.wait()


async def test_a_call_that_crosses_the_goodbye_is_carried() -> None:
    """Both are written before either is read: the caller's proxy has not heard yet."""
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        await until(lambda: near.pools["host-b"].up and far.pools["host-a"].up, "the link")
        caller = hosts.call(kind="tcp")
        near.outbound.sockets.finish({})
        near.pump.settle()
        assert near.pools["host-b"].streams == 1, "OPEN is sent"
        for pool in far.pools.values():
            pool.drain()
        assert far.pools["host-a"].streams == 0, "and not read yet"
        await caller.send(b"x")
        accepted = await service.accept()
        assert await accepted.read(1) == b"x"
        accepted.finish()
        assert await caller.rest() == (b"", False)
        caller.finish()
        await until(lambda: not far.pools["host-a"].links, "the link ends behind it")


async def test_callers_that_were_not_accepted_yet_are_taken_in() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        callers = [hosts.call() for _ in range(40)]
        agent.outbound.stop_listening()
        assert agent.pools["host-b"].streams == 40, "without a turn of the loop in between"
        for _ in callers:
            await service.accept()


async def test_what_does_not_finish_is_spread_over_the_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of the clock ends its share: never all at once."""
    monkeypatch.setattr(staggeredclose, "TICK", 0.001)
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        agent = hosts.agents["host-a"]
        callers, accepted = await carried(hosts, service, 40)
        seen: list[int] = []

        async def look() -> None:
            while not agent.draining.over.is_set():
                seen.append(agent.stats.open)
                await trio.sleep(0.0005)

        await until(lambda: agent.stats.open == 40, "all are open")
        for caller in callers:
            caller.finish()  # so that each waits for an answer, and none is quiet
        agent.draining.begin(2.0)
        await look()
        assert (agent.draining.cut, agent.draining.closed_quiet) == (40, 0)
        steps = [before - after for before, after in itertools.pairwise(seen) if before > after]
        assert len(steps) > 3, "not all at once"
        for end in callers:
            assert await end.rest() == (b"", True)
        for end in accepted:
            assert await end.rest() == (b"", False), "the caller's end came first"


@pytest.mark.failure("24")
@pytest.mark.parametrize("side", ["host-a", "host-b"], ids=["the caller's proxy", "the service's proxy"])
async def test_quiet_streams_go_first_and_all_at_once(side: str, logs: list[MutableMapping[str, Any]]) -> None:
    """A thousand of them; one that says something now and then stays until the time is nearly over."""
    async with mesh() as hosts:
        service = await hosts.pair("unix", "unix")
        agent = hosts.agents[side]
        callers, accepted = await carried(hosts, service, 1000, "unix")
        await until(lambda: agent.stats.open == 1000, "all are open")
        agent.draining.begin(10.0)
        while agent.draining.closed_quiet < 999:
            await callers[0].send(b"x")
            assert await accepted[0].read(1) == b"x"
            await trio.sleep(0.01)
        assert (agent.draining.closed_quiet, agent.draining.cut, agent.stats.open) == (999, 0, 1)
        assert not agent.draining.over.is_set()
        for end in (callers[0], accepted[0]):
            end.finish()
        await agent.draining.over.wait()
        assert agent.draining.cut == 0
        [line] = [entry for entry in logs if entry["event"] == "quiet streams were closed"]
        assert line["streams"] == 999


@pytest.mark.failure("24")
async def test_a_stop_is_over_when_nothing_but_quiet_streams_is_left() -> None:
    """Also within a host; who waits for an answer is not quiet."""
    async with mesh() as hosts:
        service = hosts.service("echo")
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", services={"echo": {"deliver": service.address}}, upstreams=upstreams)
        callers = [hosts.call() for _ in range(20)]
        accepted = [await service.accept() for _ in callers]
        callers[0].finish()
        assert await accepted[0].rest() == (b"", False)
        agent.draining.begin(10.0)
        await until(lambda: agent.draining.closed_quiet == 19, "the quiet ones")
        assert not agent.draining.closing.is_set()
        await accepted[0].send(b"the answer")
        accepted[0].finish()
        assert await callers[0].rest() == (b"the answer", False)
        await agent.draining.over.wait()
        assert (agent.draining.cut, agent.draining.closed_quiet) == (0, 19)


@pytest.mark.failure("24")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_calls_are_served_until_the_last_turn(kind: Kind) -> None:
    """Those who wait in the kernel's queue then are served as well, and only then the file goes."""
    async with mesh() as hosts:
        service = await hosts.pair(kind, kind)
        agent, peer = (hosts.agents[name] for name in ("host-a", "host-b"))
        held, taken = hosts.call(kind=kind), await service.accept()
        agent.draining.begin(20)
        await until(lambda: peer.pools["host-a"].links[0].leaving, "the peer is told at once")
        for number in range(3):
            caller = hosts.call(kind=kind)
            await caller.send(b"%d" % number)
            accepted = await service.accept()
            assert await accepted.read(1) == b"%d" % number
            for end in (caller, accepted):
                end.close()
        [listener] = agent.outbound.sockets.all
        assert listener._listener is not None
        listener._listener.hold(True)  # as if the turn were long
        waiting = [hosts.call(kind=kind) for _ in range(30)]
        for number, caller in enumerate(waiting):
            await caller.send(b"%02d" % number)
        agent.outbound.stop_listening()
        if kind == "unix":
            with pytest.raises(FileNotFoundError):
                hosts.call(kind=kind)
        for end in (held, taken):
            end.close()
        found = []
        for _ in waiting:
            accepted = await service.accept()
            found.append(await accepted.read(2))
            await accepted.send(b"answer")
            accepted.finish()
        assert found == [b"%02d" % number for number in range(30)], "in order"
        for caller in waiting:
            assert await caller.rest() == (b"answer", False)
            caller.close()
        await agent.draining.over.wait()
        assert agent.draining.cut == 0


@pytest.mark.failure("24")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_callers_on_other_hosts_are_served_while_nobody_else_offers_the_service(kind: Kind) -> None:
    """Until nothing but quiet streams is open; who calls after that waits for another process."""
    async with mesh() as hosts:
        service = await hosts.pair(kind, kind, limits={"open_timeout": "1h"})
        agent, peer = hosts.agents["host-b"], hosts.agents["host-a"]
        [held], [taken] = await carried(hosts, service, kind=kind)
        held.finish()  # it waits for an answer: it is not quiet
        agent.draining.begin(3600)
        await until(lambda: agent.draining.began, "the stop")
        for number in range(3):
            caller = hosts.call(kind=kind)
            await caller.send(b"%d" % number)
            accepted = await service.accept()
            assert await accepted.read(1) == b"%d" % number
            accepted.finish()
            assert await caller.rest() == (b"", False)
            caller.close()
        assert not peer.pools["host-b"].links[0].leaving
        taken.finish()
        assert await held.rest() == (b"", False)
        await agent.draining.over.wait()
        assert (agent.draining.cut, agent.draining.closed_quiet) == (0, 0)
        late = hosts.call(kind=kind)
        await late.send(b"late")
        await until(lambda: peer.pools["host-b"].waiting == 1, "the late call waits")


@pytest.mark.failure(8, "24")
async def test_peers_that_have_another_host_for_everything_are_told_at_once() -> None:
    """And their next calls go there. (The third host has none for what only it offers there: it is told in the end.)"""
    async with mesh() as hosts:
        here, there = hosts.service(), hosts.service("there")
        offered = {"services": {"echo": {"deliver": here.address}}}
        agent = await hosts.start("host-b", **hosts.peers(a=[], c=["echo"]), **offered)
        await hosts.start("host-c", **hosts.peers(a=[], b=["echo"]), services={"echo": {"deliver": there.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        near = await hosts.start("host-a", **hosts.peers(b=["echo"], c=["echo"]), upstreams=upstreams)
        await until(lambda: near.pools["host-b"].up and near.pools["host-c"].up, "the links")
        held = hosts.call()
        while (taken := await taken_by(here, there))[0] is there:
            held.close()
            taken[1].close()
            held = hosts.call()
        agent.draining.begin(3600)
        await until(lambda: all(link.leaving for link in near.pools["host-b"].links), "it is told at once")
        for _ in range(5):
            caller = hosts.call()
            accepted = await there.accept()
            for end in (caller, accepted):
                end.close()
        for end in (held, taken[1]):
            end.finish()
        await agent.draining.over.wait()


@pytest.mark.failure("24")
async def test_a_peer_that_does_not_answer_delays_no_stop() -> None:
    async with mesh() as hosts:
        await hosts.pair()
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        await until(lambda: near.pools["host-b"].up and far.pools["host-a"].up, "the link")
        far.pump.interest(far.pools["host-a"].links[0]._sock.fileno(), 0)  # it reads no more
        near.draining.begin(3600)
        await near.draining.over.wait()


async def test_every_kind_of_stream_ends() -> None:
    async with mesh() as hosts:
        service = hosts.service("echo")
        upstreams = {name: {"listen": hosts.upstream("host-a", name)} for name in ("echo", "web")}
        sections = {**hosts.peers(b=["web"]), "services": {"echo": {"deliver": service.address}}}
        agent = await hosts.start("host-a", **sections, upstreams=upstreams, limits={"open_timeout": "1h"})
        callers = [hosts.call(name="echo"), hosts.call(name="web")]
        await service.accept()
        await until(lambda: len(list(agent.view.streams())) == 2, "one within the host, one that waits")
        agent.draining.begin(0.2)
        await agent.draining.over.wait()
        assert (agent.draining.closed_quiet, agent.draining.cut) == (1, 1)
        for caller in callers:
            assert (await caller.rest()).received == b""


async def test_less_time_than_was_said_and_never_more() -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        agent = hosts.agents["host-a"]
        [caller], _ = await carried(hosts, service)
        agent.draining.begin(1000)
        await until(lambda: hosts.agents["host-b"].pools["host-a"].links[0].leaving, "it has begun")
        agent.draining.begin(2000)
        assert (agent.draining.left() or 0) <= 1000
        agent.draining.begin(0)
        await agent.draining.over.wait()
        assert await caller.rest() == (b"", True)
        assert agent.draining.cut == 1


async def test_whoever_follows_hears_the_end() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        caller = hosts.call()
        await service.accept()
        await until(lambda: agent.stats.open == 1, "the call")
        found: list[DrainProgress] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                found.extend([line async for line in agent.drain(20)])

            nursery.start_soon(follow)
            await until(lambda: agent.draining.began, "it has begun")
            caller.close()
        assert [line.over for line in found][-1]
        assert [line.over for line in found][:-1] == [False] * (len(found) - 1)
        first = found[0]
        assert first.holders == [
            StreamHolder(
                service="echo", direction="outbound", peer="host-b", uid=os.getuid(), pid=os.getpid(), streams=1
            )
        ]
        assert (found[-1].streams, found[-1].cut, found[-1].closed_quiet, found[-1].holders) == (0, 0, 0, [])


async def test_it_says_in_its_log_who_holds_streams(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(drain, "REPORT", 0.01)
    async with mesh() as hosts:
        service = await hosts.pair()
        agent: Agent = hosts.agents["host-a"]
        hosts.call()
        await service.accept()
        await until(lambda: agent.stats.open == 1, "the call")
        agent.draining.begin(20)
        await until(lambda: [entry for entry in logs if entry["event"] == "proxy waits for streams"], "a line")
        [line, *_] = [entry for entry in logs if entry["event"] == "proxy waits for streams"]
        assert line["holders"] == [f"echo outbound host-b pid {os.getpid()}: 1"]


def info(service: str, pid: int | None) -> StreamInfo:
    return StreamInfo(
        id="x", link=None, service=service, direction="outbound", peer=None, state="open", age_s=0, bytes_sent=0,
        bytes_received=0, credit=0, buffered=0, uid=None, pid=pid,
    )  # fmt: skip


def test_holders_are_counted_by_who_they_are() -> None:
    found = holders(Counter(map(who, [info("web", 1), info("web", 2), info("redis", None), info("web", 2)])))
    assert [(each.service, each.pid, each.streams) for each in found] == [
        ("web", 2, 2), ("web", 1, 1), ("redis", None, 1),
    ]  # fmt: skip
    assert [describe(each) for each in found] == [
        "web outbound pid 2: 2", "web outbound pid 1: 1", "redis outbound: 1",
    ]  # fmt: skip
