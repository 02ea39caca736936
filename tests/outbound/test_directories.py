from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.agent.agent import Agent
from proxy.outbound import directories
from proxy.outbound.directories import ContainerSockets
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import End

Logs = list[MutableMapping[str, Any]]
SHOP = ContainerSockets(("echo",), "shop")


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


def want(agent: Agent, **wanted: ContainerSockets) -> None:
    """As the doorkeeper does."""
    agent.outbound.directories.wanted = wanted
    agent.rebase(agent._static)


def folder(hosts: Mesh) -> Path:
    return hosts.folder / "host-a-services" / "containers"


async def host(hosts: Mesh) -> Agent:
    return await hosts.start("host-a", **hosts.peers(b=["echo"]))


def call(hosts: Mesh, path: Path) -> End:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.setblocking(False)
    return hosts.hold(sock)


def problems(logs: Logs) -> list[str]:
    return [str(entry["error"]) for entry in logs if entry["event"] == "not as its labels ask"]


async def test_a_call_is_its_containers() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        services = {"echo": {"deliver": service.address, "allow": [{"service": "shop"}]}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        agent = await host(hosts)
        want(agent, one=SHOP, two=ContainerSockets(("echo",), "other"))
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (folder(hosts), folder(hosts) / "one")]
        assert modes == [0o700, 0o755]
        path = folder(hosts) / "one" / "echo.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        caller = call(hosts, path)
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"
        accepted.finish()
        assert await caller.rest() == (b"", False)
        refused = call(hosts, folder(hosts) / "two" / "echo.sock")
        await refused.send(b"hello")
        assert (await refused.rest())[0] == b""


async def test_they_come_and_go() -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        want(agent, one=ContainerSockets(("echo", "mail"), "shop"), two=SHOP)
        inode = (folder(hosts) / "one").stat().st_ino
        want(agent, one=SHOP)
        assert sorted(path.name for path in folder(hosts).glob("*/*.sock")) == ["echo.sock"]
        assert [path.name for path in folder(hosts).iterdir()] == ["one"]
        assert (folder(hosts) / "one").stat().st_ino == inode, "the container has it mounted"
        assert agent.outbound.of_containers == {"echo"}
        want(agent)
        assert not list(folder(hosts).iterdir())
        assert agent.outbound.of_containers == frozenset()


async def test_a_proxy_that_stops_leaves_the_directories() -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        want(agent, one=SHOP)
        agent.outbound.close()
        assert [path.name for path in folder(hosts).rglob("*")] == ["one"]


async def test_what_killed_proxies_left_is_swept() -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        want(agent, one=SHOP)
        for name in (".mail.sock.lock", "mail.sock", ".mail.sock.new"):
            path = folder(hosts) / "gone" / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        (folder(hosts) / "foreign").mkdir()
        (folder(hosts) / "foreign" / "file").touch()
        agent.outbound.directories.sweep()
        assert {path.name for path in folder(hosts).iterdir()} == {"one", "foreign"}
        assert (folder(hosts) / "one" / "echo.sock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
async def test_an_engine_was_first(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        made = folder(hosts) / "one"
        made.mkdir(parents=True)
        os.chown(made, 1234, 1234)
        want(agent, one=SHOP)
        why = f"{made} was there first, made by user 1234, as an engine does; restart the container"
        assert problems(logs) == [f"container one: hostlane.sockets: {why}"]
        assert made.stat().st_uid == os.geteuid()
        assert (made / "echo.sock").exists()
        os.chown(folder(hosts), 1234, 1234)
        want(agent, one=SHOP, two=SHOP)
        [line] = problems(logs)[1:]
        why = f"{folder(hosts)} is not this user's, but user 1234's; remove it"
        assert line == f"container two: hostlane.sockets: {why}"


async def test_what_cannot_be_had_is_said_once_and_all_else_is_there(logs: Logs) -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        long = "x" * 100
        for _ in range(2):
            want(agent, **{long: SHOP, "one": SHOP})
        [line] = problems(logs)
        assert line.startswith(f"container {long}: hostlane.sockets: cannot listen on unix:")
        assert "bytes, a Unix socket's at most" in line
        assert (folder(hosts) / "one" / "echo.sock").exists()
        assert agent.outbound.directories.changed, "it is to be tried again"
        want(agent, one=SHOP)
        assert not agent.outbound.directories.changed


async def test_a_file_is_in_the_way(logs: Logs) -> None:
    async with mesh() as hosts:
        agent = await host(hosts)
        folder(hosts).parent.mkdir(exist_ok=True)
        folder(hosts).touch()
        want(agent, one=SHOP)
        [line] = problems(logs)
        assert line == f"container one: hostlane.sockets: {folder(hosts) / 'one'}: Not a directory"


def test_who_calls_there_is_known_by_the_socket_alone() -> None:
    assert directories.OURS_ALONE & 0o077 == 0
