"""The commands against a real control server, in a thread of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_UNIX
from socket import socket as UnixSocket
from typing import Any

import msgspec
import pytest
import structlog
import trio
from click.testing import CliRunner, Result

from control.api.messages import PeerStatus, RouteCandidate, ServiceRoute, ServiceStatus, Status, UpstreamStatus
from control.cli import meshcommands
from tests.control.server.conftest import PATIENCE, World, record
from tests.control.server.conftest import world as world

STATUS = Status(
    host="a", pid=1, version="0", uptime_s=1.5, security="none", sessions=0, streams=0, memory_used=0, memory_limit=1,
    streams_opened=0, streams_refused=0, handshakes_avoided=0,
    peers=[PeerStatus(name="b", address="b:1", state="up", links=1, streams=2, waiting=0)],
    upstreams=[UpstreamStatus(service="redis", listen="unix:/r", offered_by=["b"])],
    services=[ServiceStatus(name="web", deliver="unix:/w", streams=0)],
)  # fmt: skip


@pytest.fixture
def server(world: World) -> Iterator[World]:
    """A control server with two hosts on its map, for commands that block."""
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with world.serving(), world.client("host-a") as a, world.client("host-b") as b:
            await a.register(record("host-a", "redis", address="10.77.0.1:7600"))
            await b.register(record("host-b", "redis", "web", address="10.77.0.2:7600"))
            up.set()
            await trio.to_thread.run_sync(stop.wait)

    thread = threading.Thread(target=trio.run, args=(serve,))
    # Signal handlers are the main thread's.
    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr("control.server.serve.trio.open_signal_receiver", lambda *_: _NoSignals())
        thread.start()
        assert up.wait(PATIENCE)
        yield world
        stop.set()
        thread.join(PATIENCE)


class _NoSignals:
    def __enter__(self) -> _NoSignals:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise AssertionError


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_hosts_and_services(server: World) -> None:
    at = ("--socket", server.socket)
    result = run(meshcommands.hosts, *at)
    assert (result.exit_code, result.stderr) == (0, "")
    head, a, b = result.stdout.splitlines()
    assert head.split()[:2] == ["host", "address"]
    assert a.split()[:2] == ["host-a", "10.77.0.1:7600"]
    assert b.split()[-2:] == ["redis,", "web"]
    result = run(meshcommands.services, *at)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["redis", "2"], ["web", "1"]]
    found = json.loads(run(meshcommands.hosts, *at, "--json").stdout)
    assert [host["name"] for host in found["hosts"]] == ["host-a", "host-b"]
    assert run(meshcommands.hosts, "remove", "host-b", *at).exit_code == 0
    result = run(meshcommands.hosts, "remove", "host-b", *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_tokens(server: World) -> None:
    at = ("--socket", server.socket)
    result = run(meshcommands.token, "create", "--host", "host-c", *at)
    assert result.exit_code == 0
    assert result.stdout.startswith("hostlane1.")
    created = json.loads(run(meshcommands.token, "create", "--host", "host-d", "--ttl", "1h", "--json", *at).stdout)
    assert created["token"].startswith("hostlane1.")
    found = json.loads(run(meshcommands.token, "list", "--json", *at).stdout)
    assert {token["host"] for token in found} == {"host-c", "host-d"}
    assert len(run(meshcommands.token, "list", *at).stdout.splitlines()) == 3
    assert run(meshcommands.token, "delete", found[0]["id"], *at).exit_code == 0
    result = run(meshcommands.token, "delete", found[0]["id"], *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    for wrong in (("--host", "no host"), ("--host", "host-c", "--ttl", "5")):
        assert run(meshcommands.token, "create", *wrong, *at).exit_code == 2


def test_revoke(server: World) -> None:
    at = ("--socket", server.socket)
    assert run(meshcommands.revoke, *at).exit_code == 2
    result = run(meshcommands.revoke, "host-z", *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_rotation(server: World) -> None:
    at = ("--socket", server.socket)
    assert len(run(meshcommands.ca, "status", *at).stdout.splitlines()) == 2
    assert len(run(meshcommands.ca, "add", *at).stdout.splitlines()) == 3
    assert run(meshcommands.ca, "add", *at).exit_code == 1
    assert run(meshcommands.ca, "activate", *at).exit_code == 0
    found = json.loads(run(meshcommands.ca, "drop", "--force", "--json", *at).stdout)
    assert len(found["roots"]) == 1


def test_watch_shows_each_change(server: World) -> None:
    command = "from control.cli.meshcommands import hosts; hosts()"
    arguments = ["--socket", server.socket, "--watch", "--json"]
    # Where a shell started the tests in the background, it has SIGINT ignored.
    argv = ["env", "--default-signal=INT", sys.executable, "-c", command, *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert len(json.loads(process.stdout.readline())["hosts"]) == 2
        assert run(meshcommands.hosts, "remove", "host-b", "--socket", server.socket).exit_code == 0
        assert [host["name"] for host in json.loads(process.stdout.readline())["hosts"]] == ["host-a"]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_proxy_is_asked_where_there_is_no_control_server(answering: Callable[..., str], tmp_path: Path) -> None:
    os.rename(answering(msgspec.json.encode(STATUS)), tmp_path / "admin.sock")
    file = tmp_path / "host.yaml"
    file.write_text(f"run_dir: {tmp_path}\n")
    result = run(meshcommands.hosts, "--config", str(file))
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [["a", "this", "host"], ["b", "b:1", "up"]]
    result = run(meshcommands.services, "--config", str(file))
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [["redis", "1", "b"], ["web", "1", "a"]]
    assert json.loads(run(meshcommands.hosts, "--json", "--config", str(file)).stdout)["host"] == "a"


def killed_listener(path: Path) -> None:
    with UnixSocket(AF_UNIX) as left:
        left.bind(str(path))
        left.listen()


def full_of_nobody(path: Path) -> None:
    """Bound, and never listened at."""
    with UnixSocket(AF_UNIX) as left:
        left.bind(str(path))


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone.sock")


@pytest.mark.failure("31")
@pytest.mark.parametrize("leave", [killed_listener, full_of_nobody, dangling])
def test_a_stale_socket_of_a_control_server_is_none(
    answering: Callable[..., str], tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    file = tmp_path / "host.yaml"
    file.write_text(f"run_dir: {tmp_path}\n")
    leave(tmp_path / "control.sock")
    # Where there is no proxy either, it is the control server that is missing.
    assert "control.sock" in run(meshcommands.hosts, "--config", str(file)).stderr
    os.rename(answering(msgspec.json.encode(STATUS)), tmp_path / "admin.sock")
    result = run(meshcommands.hosts, "--config", str(file))
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [["a", "this", "host"], ["b", "b:1", "up"]]


@pytest.mark.parametrize("command", [meshcommands.hosts, meshcommands.services, meshcommands.token_list])
def test_nobody_there_is_one_line(tmp_path: Path, command: Any) -> None:
    for socket in (tmp_path / "control.sock", tmp_path / "other.sock"):
        result = run(command, "--socket", str(socket))
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert result.stderr.startswith("hostlane: ")
    result = run(command, "--config", str(tmp_path / "no.yaml"))
    assert result.exit_code == 2
    assert run(command, "--config", "a", "--socket", "b").exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run(meshcommands.completion, shell)
    assert result.exit_code == 0
    assert "_HOSTLANE_COMPLETE" in result.stdout


def test_where_a_stream_would_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = RouteCandidate(host="host-b", address="10.0.0.2:7600", state="up", streams=1)
    routes = [
        ServiceRoute(service="redis", listen="unix:/r", takes=["host-b"], why="why not", candidates=[candidate]),
        ServiceRoute(service="web", listen="unix:/w", takes=[], why="nobody offers it", candidates=[]),
    ]
    asked = []

    def ask(place: str, path: str, kind: Any) -> tuple[Any, bytes]:
        asked.append((place, path))
        return routes, b""

    monkeypatch.setattr(meshcommands.admin, "ask", ask)
    file = tmp_path / "host.yaml"
    file.write_text("run_dir: /run/x")
    at = ("--config", str(file))
    result = run(meshcommands.services, "--explain", "redis", *at)
    assert (result.exit_code, result.stderr) == (0, "")
    assert asked == [("/run/x/admin.sock", "/services")], "the proxy's, also where a control server runs"
    assert "host-b" in result.stdout
    assert "why not" in result.stdout
    result = run(meshcommands.services, "--explain", "redis", "--json", *at)
    assert json.loads(result.stdout)["takes"] == ["host-b"]
    assert run(meshcommands.services, "--explain", "web", *at).exit_code == 1
    result = run(meshcommands.services, "--explain", "reddis", *at)
    assert result.exit_code == 1
    why = "nobody offers it, and this host does not call it (did you mean redis?)"
    assert result.stderr == f"hostlane: service reddis: {why}\n"
    assert run(meshcommands.services, "--explain", "redis", "--watch", *at).exit_code == 2
