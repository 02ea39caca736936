"""One proxy takes another one's place, in one process: what each of the steps means for callers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.base.system.notify import VARIABLE, notify
from proxy.agent.agent import Agent
from proxy.agent.handover import sockets as sockets_module
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, LEASH, LINKS, UPSTREAM
from proxy.agent.handover.sockets import HandoverSockets
from proxy.errors import NotApplied
from tests.pump.agents import Mesh, Service, mesh
from tests.pump.rig import until
from tests.tools.sockets import free_port


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


PATIENT = {"limits": {"stop_timeout": "20s", "open_timeout": "20s"}}


def sockets_of(agent: Agent) -> HandoverSockets:
    assert agent._handover_sockets is not None
    return agent._handover_sockets


async def pair(hosts: Mesh) -> tuple[Service, Agent]:
    """The service of host-b, and host-a's proxy."""
    service = await hosts.pair(**PATIENT)
    return service, hosts.agents["host-a"]


async def test_what_there_is_to_hand_over() -> None:
    async with mesh() as hosts:
        _, agent = await pair(hosts)
        found = {(each.kind, each.address) for each in sockets_of(agent).sockets() if each.kind != LEASH}
        assert found == {
            (ADMIN, f"unix:{agent.config.run_dir}/admin.sock"),
            (HANDOVER, f"unix:{agent.config.run_dir}/next.sock"),
            (LINKS, hosts.addresses["host-a"]),
            (UPSTREAM, hosts.upstream("host-a", "echo")),
        }


async def test_held_callers_wait_and_kept_ones_are_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with mesh() as hosts:
        service, agent = await pair(hosts)
        handover_sockets = sockets_of(agent)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(tmp_path / "notify"))
            monkeypatch.setenv(VARIABLE, str(tmp_path / "notify"))
            assert handover_sockets.reserve() is None
            assert handover_sockets.reserve() == "another process is about to take over from it"
            handover_sockets.pause(4711)
            caller = hosts.call()
            await caller.send(b"patience")
            admin = await trio.open_unix_socket(f"{agent.config.run_dir}/admin.sock")
            await admin.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not agent.outbound.context.calls
            handover_sockets.resume()
            assert await (await service.accept()).read(8) == b"patience"
            assert (await admin.receive_some(12)) == b"HTTP/1.1 200"
            await admin.aclose()
            assert [told.recv(100), told.recv(100)] == [b"MAINPID=4711", b"MAINPID=%d" % os.getpid()]
            assert handover_sockets.reserve() is None


@pytest.mark.failure("26")
async def test_systemd_learns_of_another_process_when_it_listens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the end of the old one for the end of the service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.setblocking(False)
        async with mesh() as hosts:
            _, agent = await pair(hosts)
            monkeypatch.setenv(VARIABLE, str(tmp_path / "notify"))
            while notify("WATCHDOG=1"):
                pass
            handover_sockets = sockets_of(agent)
            handover_sockets.reserve()
            handover_sockets.pause(4711)
            handover_sockets.resume()
            words: list[bytes] = []

            def heard() -> bool:
                with suppress(BlockingIOError):
                    while True:
                        words.append(told.recv(100))
                return b"MAINPID=%d" % os.getpid() in words

            await until(heard, "both words")
            assert [word for word in words if word != b"WATCHDOG=1"] == [b"MAINPID=4711", b"MAINPID=%d" % os.getpid()]


async def test_while_engaged_the_sockets_stay_and_the_rest_may_change() -> None:
    async with mesh() as hosts:
        _, agent = await pair(hosts)
        sockets_of(agent).reserve()
        without = msgspec.structs.replace(agent.config, upstreams={})
        with pytest.raises(NotApplied, match="another process is about to take over"):
            agent.apply(without)
        assert agent.apply(msgspec.structs.replace(agent.config, peers={})).peers == {"host-b"}
        sockets_of(agent).resume()
        agent.apply(without)


async def test_not_while_it_stops() -> None:
    async with mesh() as hosts:
        service, agent = await pair(hosts)
        hosts.call()
        await service.accept()
        agent.draining.begin(20)
        assert sockets_of(agent).reserve() == "it is about to stop"
        assert not sockets_of(agent).reserved


async def test_told_to_stop_while_the_new_process_has_its_word_it_leaves_the_files() -> None:
    async with mesh() as hosts:
        service, agent = await pair(hosts)
        hosts.call()
        await service.accept()
        handover_sockets, path = sockets_of(agent), Path(hosts.upstream("host-a", "echo").removeprefix("unix:"))
        assert handover_sockets.reserve() is None
        assert handover_sockets.pause(4711) is None
        agent.draining.begin(0.2)
        await until(lambda: not agent.outbound.sockets.opened, "it listens no more")
        assert path.is_socket()
        handover_sockets.retire(0.0)
        await agent.draining.over.wait()
        assert path.is_socket()
        for left in (path, Path(agent.config.run_dir) / "admin.sock", Path(agent.config.run_dir) / "next.sock"):
            left.unlink()


async def test_not_when_it_was_told_to_stop_while_the_new_process_got_ready() -> None:
    """Its sockets' files are gone by then: the new one would listen where nobody can call."""
    async with mesh() as hosts:
        service, agent = await pair(hosts)
        hosts.call()
        await service.accept()
        assert sockets_of(agent).reserve() is None
        agent.draining.begin(20)
        assert sockets_of(agent).pause(4711) == "it is about to stop"
        assert all(own.gate.is_open for own in sockets_of(agent).own)


@pytest.mark.failure(6, 10)
@pytest.mark.parametrize("same", [True, False])
async def test_a_proxy_takes_the_place_of_another(same: bool, logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service, old = await pair(hosts)
        caller = hosts.call()
        accepted = await service.accept()
        path = Path(hosts.upstream("host-a", "echo").removeprefix("unix:"))
        inode = path.stat().st_ino
        assert await hosts.takeover("host-a", changed(hosts, same)) is old
        new = hosts.agents["host-a"]
        await until(lambda: old.draining.began, "it has let go")
        assert {entry["event"] for entry in logs if "over" in entry["event"]} == {
            "proxy handed over",
            "proxy taken over",
        }
        again = hosts.call()
        await again.send(b"new")
        assert await (await service.accept()).read(3) == b"new"
        assert (old.stats.open, new.stats.open) == (1, 1)
        await caller.send(b"old")
        assert await accepted.read(3) == b"old"
        assert path.stat().st_ino == inode
        assert path.stat().st_mode & 0o777 == (0o666 if same else 0o600)
        for end in (caller, accepted):
            end.close()
        await old.draining.over.wait()
        assert old.draining.cut == 0
        hosts.call().close()


@pytest.mark.failure("24")
async def test_a_further_takeover_ends_the_oldest_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes go on with their streams beside the one that accepts."""
    monkeypatch.setattr(sockets_module, "HURRY", 0.2)
    async with mesh() as hosts:
        service, _ = await pair(hosts)
        old, ends = [], []
        for number in range(3):
            caller = hosts.call()
            await caller.send(b"%d" % number)
            accepted = await service.accept()
            assert await accepted.read(1) == b"%d" % number
            ends.append((caller, accepted))
            assert not any(each.draining.over.is_set() for each in old)
            old.append(await hosts.takeover("host-a", changed(hosts, True)))
            name = f"host-a {number}"
            hosts.agents[name], hosts._scopes[name] = hosts.agents.pop("host-a old"), hosts._scopes.pop("host-a old")
        await old[0].draining.over.wait()
        assert (await ends[0][0].rest()).received == b""
        for caller, accepted in ends[1:]:
            await caller.send(b"still there")
            assert await accepted.read(11) == b"still there"
        assert [each.draining.over.is_set() for each in old] == [True, False, False]
        hosts.call().close()


@pytest.mark.failure("21")
async def test_an_inherited_socket_has_what_the_new_configuration_says() -> None:
    """What is set before the socket has come is set on what stands in for it."""
    async with mesh() as hosts:
        await hosts.pair(**PATIENT)
        listen = f"tcp:127.0.0.1:{free_port()}"
        sections = {**changed(hosts, True), "upstreams": {"echo": {"listen": listen}}}
        await hosts.takeover("host-a", sections)
        for kept in (hosts.agents, hosts._scopes):
            kept["host-a 0"] = kept.pop("host-a old")
        await hosts.takeover("host-a", {**sections, "tcp": {"keepalive_idle": "77s"}})
        [opened] = hosts.agents["host-a"].outbound.sockets.all
        assert opened.inheritable().sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


async def test_nobody_listens_any_more_where_links_came_in_before() -> None:
    """A connection there would wait for somebody to accept it for ever."""
    async with mesh() as hosts:
        _, old = await pair(hosts)
        host, port = hosts.addresses["host-a"].split(":")
        links = {"links": {"listen": f"{host}:{int(port) + 1}"}}
        await hosts.takeover("host-a", {**changed(hosts, True), **links})
        await until(lambda: old.draining.began, "it has let go")
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 5):
            pass


def changed(hosts: Mesh, same: bool) -> dict[str, Any]:
    mode = "0666" if same else "0600"
    upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "mode": mode}}
    return {**hosts.peers(b=["echo"]), "upstreams": upstreams, **PATIENT}
