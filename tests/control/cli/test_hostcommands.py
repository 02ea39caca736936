"""The commands against a real control server, in a thread of its own, and against a proxy's answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from control.api.messages import MeshHost, RouteCandidate, ServiceRoute
from control.cli import hostcommands, meshcommands
from tests.control.cli.conftest import Proxy
from tests.control.server.conftest import PATIENCE, World

HOSTS = [
    MeshHost(name="a", address="a:1", state="here", services=["web"]),
    MeshHost(name="b", address="b:1", state="idle", services=["redis"], links=1, streams=2),
]
ROUTES = [
    ServiceRoute(
        service=name, listen=listen, takes=[host], why="",
        candidates=[RouteCandidate(host=host, address=f"{host}:1", state="up", streams=0)],
    )
    for name, listen, host in (("redis", "unix:/r", "b"), ("web", None, "a"))
]  # fmt: skip


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_hosts_and_services(server: World) -> None:
    at = ("--socket", server.socket)
    result = run(hostcommands.hosts, *at)
    assert (result.exit_code, result.stderr) == (0, "")
    head, a, b = result.stdout.splitlines()
    assert head.split()[:2] == ["host", "address"]
    assert a.split()[:2] == ["host-a", "10.77.0.1:7600"]
    assert b.split()[-2:] == ["redis,", "web"]
    result = run(hostcommands.services, *at)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["redis", "2"], ["web", "1"]]
    found = json.loads(run(hostcommands.hosts, *at, "--json").stdout)
    assert [host["name"] for host in found] == ["host-a", "host-b"]
    assert run(hostcommands.hosts, "remove", "host-b", *at).exit_code == 0
    result = run(hostcommands.hosts, "remove", "host-b", *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_watch_shows_each_change(server: World) -> None:
    command = "from control.cli.hostcommands import hosts; hosts()"
    arguments = ["--socket", server.socket, "--watch", "--json"]
    # Where a shell started the tests in the background, it has SIGINT ignored.
    argv = ["env", "--default-signal=INT", sys.executable, "-c", command, *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert len(json.loads(process.stdout.readline())) == 2
        assert run(hostcommands.hosts, "remove", "host-b", "--socket", server.socket).exit_code == 0
        assert [host["name"] for host in json.loads(process.stdout.readline())] == ["host-a"]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_proxy_is_asked_where_there_is_no_control_server(proxy: Proxy, tmp_path: Path) -> None:
    proxy.answers.update({"/hosts": HOSTS, "/services": ROUTES})
    file = tmp_path / "host.yaml"
    file.write_text(f"run_dir: {tmp_path}\n")
    result = run(hostcommands.hosts, "--config", str(file))
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert head == ["host", "address", "state", "links", "streams", "services", "offers"]
    assert rows == [["a", "a:1", "this", "host", "-", "-", "1", "web"], ["b", "b:1", "idle", "1", "2", "1", "redis"]]
    result = run(hostcommands.services, "--config", str(file))
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["redis", "1", "b", "unix:/r"], ["web", "1", "a", "-"],
    ]  # fmt: skip


def test_the_names_of_services_inside_containers(proxy: Proxy, server: World) -> None:
    proxy.answers.update({"/services": ROUTES})
    shown = """\
# /etc/hosts
127.123.70.200 redis
127.94.87.246 web
# compose
extra_hosts:
  - "redis:127.123.70.200"
  - "web:127.94.87.246"
"""
    for at in (proxy.path, server.socket):
        result = run(hostcommands.services, "--hosts", "--socket", str(at))
        assert (result.exit_code, result.stdout, result.stderr) == (0, shown, "")
    two = [ROUTES[0], *(msgspec.structs.replace(ROUTES[0], service=f"service-{n}") for n in (1262, 2207))]
    proxy.answers.update({"/services": two})
    result = run(hostcommands.services, "--hosts", "--socket", proxy.path)
    assert result.stderr.startswith("hostlane: services service-1262 and service-2207 have one address, 127.112.240.28")
    assert run(hostcommands.services, "--hosts", "--json", "--socket", proxy.path).exit_code == 2


def test_the_same_fields_whoever_answers(proxy: Proxy, server: World) -> None:
    proxy.answers.update({"/hosts": HOSTS, "/services": ROUTES})
    for command in (hostcommands.hosts, hostcommands.services):
        answers = [json.loads(run(command, "--json", "--socket", at).stdout) for at in (proxy.path, server.socket)]
        of_proxy, of_server = ([list(item) for item in answer] for answer in answers)
        assert of_proxy[0] == of_server[0]


def test_a_watch_survives_a_restart_of_the_proxy(proxy: Proxy) -> None:
    proxy.answers["/hosts"] = HOSTS
    command = "from control.cli.hostcommands import hosts; hosts()"
    argv = ["env", "--default-signal=INT", sys.executable, "-c", command, "--socket", proxy.path, "--watch"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline().startswith("host")
        proxy.stop()
        assert process.stderr.readline() == (
            f"hostlane: {proxy.path}: nobody listens there; the proxy that made it is gone; waiting for it\n"
        )
        proxy.answers["/hosts"] = [*HOSTS, MeshHost(name="new", address="c:1", state="up", services=[])]
        proxy.start()
        while not process.stdout.readline().startswith("new"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("command", [hostcommands.hosts, hostcommands.services, meshcommands.token_list])
def test_nobody_there_is_one_line(tmp_path: Path, command: Any) -> None:
    for socket in (tmp_path / "control.sock", tmp_path / "other.sock"):
        result = run(command, "--socket", str(socket))
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert result.stderr.startswith("hostlane: ")
    result = run(command, "--config", str(tmp_path / "no.yaml"))
    assert result.exit_code == 2
    assert run(command, "--config", "a", "--socket", "b").exit_code == 2


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

    monkeypatch.setattr(hostcommands.admin, "ask", ask)
    file = tmp_path / "host.yaml"
    file.write_text("run_dir: /run/x")
    at = ("--config", str(file))
    result = run(hostcommands.services, "--explain", "redis", *at)
    assert (result.exit_code, result.stderr) == (0, "")
    assert asked == [("/run/x/admin.sock", "/services")], "the proxy's, also where a control server runs"
    assert "host-b" in result.stdout
    assert "why not" in result.stdout
    result = run(hostcommands.services, "--explain", "redis", "--json", *at)
    assert json.loads(result.stdout)["takes"] == ["host-b"]
    assert run(hostcommands.services, "--explain", "web", *at).exit_code == 1
    result = run(hostcommands.services, "--explain", "reddis", *at)
    assert result.exit_code == 1
    why = "nobody offers it, and this host does not call it (did you mean redis?)"
    assert result.stderr == f"hostlane: service reddis: {why}\n"
    assert run(hostcommands.services, "--explain", "redis", "--watch", *at).exit_code == 2
