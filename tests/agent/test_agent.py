"""A whole proxy: start, stop, and what is left of it."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.api.client import Denied
from control.api.mesh import HostRecord
from control.base.reading.addresses import ADMIN_SOCKET
from proxy.errors import CloseReason, StartError
from proxy.mux.stream import StreamState
from proxy.pool.recorded import read
from tests.pump.agents import mesh
from tests.pump.rig import KINDS, Kind, until
from tests.telemetry.test_meshview import Registry, start


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.mark.parametrize("mtls", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_from_host_to_host(kind: Kind, mtls: bool) -> None:
    async with mesh(mtls=mtls) as hosts:
        service = await hosts.pair(kind, kind)
        caller = hosts.call(kind=kind)
        await caller.send(b"request")
        accepted = await service.accept()
        assert await accepted.read(7) == b"request"
        await accepted.send(b"answer")
        accepted.finish()
        assert await caller.rest() == (b"answer", False)
        caller.close()
        assert await accepted.rest() == (b"", False)
        await until(lambda: not any(agent.stats.open for agent in hosts.agents.values()), "the end")


async def test_it_is_ready_when_it_says_so(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", services={"echo": {"deliver": "tcp:127.0.0.1:9"}})
        admin = Path(agent.config.run_dir) / ADMIN_SOCKET
        assert stat.S_IMODE(admin.stat().st_mode) == 0o600
        [ready] = [entry for entry in logs if entry["event"] == "proxy ready"]
        assert (ready["host"], ready["services"], ready["security"]) == ("host-a", ["echo"], "none")


async def test_security_none_is_said_loudly_and_mtls_is_not(logs: list[MutableMapping[str, Any]]) -> None:
    loud = "links are neither encrypted nor authenticated"
    async with mesh() as hosts:
        await hosts.start("host-a")
        assert [entry["log_level"] for entry in logs if entry["event"] == loud] == ["warning"]
    logs.clear()
    async with mesh(mtls=True) as hosts:
        await hosts.start("host-a")
        [ready] = [entry for entry in logs if entry["event"] == "proxy ready"]
        assert ready["security"] == "mtls"
        assert loud not in [entry["event"] for entry in logs]


async def test_a_port_in_use_is_one_line_and_leaves_nothing() -> None:
    async with mesh() as hosts:
        host, port = hosts.addresses["host-a"].split(":")
        with socket.create_server((host, int(port))):
            agent = hosts.agent("host-a", {"upstreams": {}})
            with pytest.raises(StartError, match=r"^links\.listen: .*the port is in use"):
                await agent.run()
        agent.outbound.close()


@pytest.mark.failure("22")
async def test_a_second_proxy_in_the_same_place_is_refused() -> None:
    async with mesh() as hosts:
        first = await hosts.start("host-a")
        second = hosts.agent("host-b", {})
        hosts.agents["host-a"] = first
        config = second.config
        object.__setattr__(
            second, "config", type(config)(host="host-b", links=config.links, run_dir=first.config.run_dir)
        )
        with pytest.raises(StartError) as caught:
            await second.run()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(number: signal.Signals, logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        agent = hosts.agent("host-a", {})
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            os.kill(os.getpid(), number)
        assert logs[-1]["event"] == "proxy stopped"


async def test_open_streams_may_finish(logs: list[MutableMapping[str, Any]]) -> None:
    """New calls are served meanwhile; the proxy ends with its last stream."""
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = hosts.agent(
            "host-a", {**hosts.peers(b=["echo"]), "upstreams": upstreams, "limits": {"stop_timeout": "20s"}}
        )
        stopped = trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await agent.run(task_status=task_status)
            stopped.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            caller = hosts.call()
            await caller.send(b"x")
            accepted = await service.accept()
            assert await accepted.read(1) == b"x"
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: any(entry["event"] == "proxy stopping" for entry in logs), "the signal")
            late = hosts.call()
            await late.send(b"late")
            served = await service.accept()
            assert await served.read(4) == b"late"
            for end in (late, served):
                end.close()
            await accepted.send(b"still")
            assert await caller.read(5) == b"still"
            assert not stopped.is_set()
            caller.close()
            assert await accepted.rest() == (b"", False)
            accepted.close()
            await stopped.wait()


async def test_a_second_signal_ends_the_rest_at_once(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = hosts.service(kind="tcp")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = hosts.agent(
            "host-a", {**hosts.peers(b=["echo"]), "upstreams": upstreams, "limits": {"stop_timeout": "1h"}}
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            caller = hosts.call(kind="tcp")
            accepted = await service.accept()
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: any(entry["event"] == "proxy stopping" for entry in logs), "the signal")
            os.kill(os.getpid(), signal.SIGTERM)
        for end in (caller, accepted):
            assert await end.rest() == (b"", True)


@pytest.mark.failure(3)
async def test_cancelled_it_ends_all_streams_as_resets(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        caller = hosts.call(kind="tcp")
        accepted = await service.accept()
        hosts.kill("host-a")
        for end in (caller, accepted):
            assert await end.rest() == (b"", True)
        await until(lambda: hosts.agents["host-b"].stats.open == 0, "told")
        reasons = {entry["reason"] for entry in logs if entry["event"] == "stream ended"}
        assert reasons == {CloseReason.STOPPED.label}


@pytest.mark.failure(1)
@pytest.mark.parametrize("both", [False, True])
async def test_stopped_with_bytes_for_a_reader_that_does_not_read(both: bool) -> None:
    """Also when the stream has ended in both directions and only its last bytes still wait in the proxy."""
    async with mesh() as hosts:
        service = await hosts.pair("unix", "unix")
        caller = hosts.call()
        accepted = await service.accept()
        agent = hosts.agents["host-b"]
        if both:
            accepted.finish()
            assert await caller.rest() == (b"", False)
        await until(lambda: caller.raw.send(bytes(20_000)) and agent.pump.budget.used, "bytes in the proxy")
        caller.finish()
        [lane] = agent.pools["host-a"].links[0].session.streams.values()
        ended = {StreamState.CLOSED} if both else {StreamState.FIN_RECEIVED}
        await until(lambda: lane.state in ended, "the caller's end")
        hosts.kill("host-b")


@pytest.mark.failure(18)
async def test_cancelled_from_outside_it_leaves_without_an_error() -> None:
    """As a test, another task of the same nursery, or KeyboardInterrupt does: all parts are cancelled at once."""
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = hosts.agent("host-a", {**hosts.peers(b=["echo"]), "upstreams": upstreams})
        async with trio.open_nursery() as nursery:
            await nursery.start(agent.run)
            nursery.cancel_scope.cancel()


async def test_uses_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "uses.jsonl"
    async with mesh() as hosts:
        service = await hosts.pair(pool={"record": str(file)})
        caller = hosts.call()
        await caller.send(b"request")
        accepted = await service.accept()
        await accepted.read(7)
        accepted.close()
        await caller.rest()
        caller.close()
        await until(lambda: all(agent.stats.open == 0 for agent in hosts.agents.values()), "the end")
    uses = list(read(file.read_bytes().splitlines(), "f"))
    assert sorted((use.peer, use.bytes) for use in uses) == [("host-a", 7), ("host-b", 7)]


async def test_a_record_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    async with mesh() as hosts:
        agent = hosts.agent("host-a", {"pool": {"record": str(tmp_path)}})
        with pytest.raises(StartError, match=r"^pool\.record: .*: found a directory; allowed: "):
            await agent.run()


async def test_an_idle_link_is_closed_and_the_next_call_makes_another() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(pool={"idle_min": "1ms", "idle_max": "1ms"})
        pool = hosts.agents["host-a"].pools["host-b"]
        await until(lambda: pool.idle and not pool.links, "the link's end")
        view = hosts.agents["host-a"].view.status().peers[0]
        assert (view.state, view.idle) == ("down", True)
        caller = hosts.call()
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"
        assert pool.dials == 2
        assert hosts.agents["host-a"].view.status().handshakes_avoided == 0, "it had to wait"


@pytest.mark.failure("22")
async def test_while_another_proxy_has_its_name_it_takes_no_streams() -> None:
    """Of other hosts, whose calls are for that one; its own go out."""
    plane = Registry()
    async with mesh(mtls=True) as hosts:
        service = hosts.service()
        await start(hosts, "host-b", plane, services={"web": {"deliver": service.address}})
        await until(lambda: plane.hosts, "host-b is registered")
        other = HostRecord(name="host-a", address=hosts.addresses["host-c"], instance="other")
        plane.hosts["host-a"] = other
        plane.told(put=(other,))
        plane.denied["register"] = Denied("in_use", "host-a is the proxy at 10.0.0.9:7600, which is alive", 409)
        agent = await start(hosts, "host-a", plane, upstreams={"web": {"listen": hosts.upstream("host-a", "web")}})
        await until(lambda: agent.pools.get("host-b") is not None, "the map")
        await until(lambda: agent.pools["host-b"].refuses() is CloseReason.DRAINING, "displaced")
        discovery = agent.view.status().control
        assert discovery is not None
        assert discovery.displaced
        caller = hosts.call(name="web")
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"
        assert all(link.leaving for link in agent.pools["host-b"].links)
        plane.denied.clear()
        await until(lambda: agent.pools["host-b"].refuses() is None, "it is host-a")
