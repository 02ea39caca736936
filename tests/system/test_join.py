"""From nothing to PONG, as docs/join.md has it: a token on the control server, one command on each host."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.demo.controlserver import ControlServer
from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from proxy.demo.processes import stop
from tests.system.world import hostlane
from tests.tools.process import Process
from tests.tools.servers import Listener
from tests.tools.sockets import connect, eventually

pytestmark = pytest.mark.netns


@pytest.fixture
def server(lab: Lab) -> Iterator[ControlServer]:
    """A control server on host-a's machine."""
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    made = ControlServer(lab.a, 7601, folder)
    made.file.write_text(made.configuration())
    made.init()
    running = made.start()
    yield made
    stop([running._process])
    shutil.rmtree(folder)


def join(server: ControlServer, host: LabHost, *words: str) -> subprocess.CompletedProcess[str]:
    """``hostlane join`` on a host, with a new token, in a folder of its own."""
    token = hostlane("token", "create", "--host", host.name, "--config", str(server.file), host=server.place)
    assert token.returncode == 0, token.stderr
    folder = server.folder / host.name
    places = ["--config", f"{folder}/hostlane.yaml", "--state-dir", f"{folder}/state", "--run-dir", f"{folder}/run"]
    return hostlane("join", token.stdout.strip(), *places, "--socket-dir", f"{folder}/services", *words, host=host)


def next_command(said: str) -> list[str]:
    """What the last line says to do."""
    [line] = [line for line in said.splitlines() if line.startswith("next: hostlane ")]
    return [*HOSTLANE, *line.removeprefix("next: hostlane ").split()]


def test_two_hosts_from_nothing_to_pong(lab: Lab, server: ControlServer) -> None:
    b = join(server, lab.b, "--offer", "redis=tcp:127.0.0.1:6379")
    assert b.returncode == 0, b.stderr
    assert b.stdout.splitlines()[:1] == [
        f"{lab.b.name} is a host of mesh hostlane; links arrive at {lab.b.address}:7600"
    ]
    a = join(server, lab.a, "--use", "redis")
    assert a.returncode == 0, a.stderr
    path = f"{server.folder}/{lab.a.name}/services/redis.sock"
    assert f"redis: unix:{path}" in a.stdout.splitlines()
    for host in (lab.a, lab.b):
        written = server.folder / host.name
        assert hostlane("validate", f"{written}/hostlane.yaml").returncode == 0
        assert os.stat(written / "state").st_mode & 0o777 == 0o700
    with ExitStack() as stack:
        for host, said in ((lab.b, b.stdout), (lab.a, a.stdout)):
            proxy = stack.enter_context(Process(next_command(said), host=host))
            proxy.wait_for("proxy ready", security="mtls")
        redis = stack.enter_context(Listener("tcp:127.0.0.1:6379", lab.b.socket()))
        admin = str(server.folder / lab.a.name / "run" / "admin.sock")
        eventually(lambda: lab.b.name in hostlane("status", "--socket", admin, "--json").stdout, "the map")
        with connect(Path(path)) as caller:
            caller.sendall(b"PING\r\n")
            with redis.accept() as accepted:
                assert accepted.recv(100) == b"PING\r\n"
                accepted.sendall(b"+PONG\r\n")
                assert caller.recv(100) == b"+PONG\r\n"


def test_a_second_time(lab: Lab, server: ControlServer) -> None:
    assert join(server, lab.b).returncode == 0
    again = join(server, lab.b)
    assert again.returncode == 2
    assert "hostlane.yaml exists: this host has a configuration" in again.stderr
    assert again.stdout == ""
