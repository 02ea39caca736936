from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from tests.system.world import hostlane
from tests.tools.mesh import SERVICE, Mesh
from tests.tools.servers import Echo
from tests.tools.sockets import exchange

DELIVER = "tcp:127.0.0.1:7800"


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Iterator[Mesh]:
    with Echo(DELIVER, lab.b.socket()), Mesh(DELIVER, lab=lab) as running:
        for _ in range(5):
            with running.call() as caller:
                exchange(caller, b"hello")
        yield running


@pytest.mark.netns
def test_a_picture(lab: Lab, mesh: Mesh) -> None:
    done = hostlane("explain", SERVICE, "--config", str(mesh.a.file), host=lab.a)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "echo, called on host-a, served by host-b"
    assert f"directly from here to host-b, {lab.b.address}" in lines[2]
    assert "● macvlan mv0  10.77.0.1/24" in done.stdout
    # The first of them may have come before the link.
    assert re.search("[45] handshakes avoided by 5 streams; links open now: 1", done.stdout)


@pytest.mark.netns
def test_json(lab: Lab, mesh: Mesh) -> None:
    socket = str(mesh.folder / "a" / "run" / "admin.sock")
    done = hostlane("explain", SERVICE, "--socket", socket, "--json", "--to", lab.b.machine_address, host=lab.a)
    found = json.loads(done.stdout)
    assert (found["service"], found["peer"]) == (SERVICE, "host-b")
    assert found["direct"]["parts"][1]["name"] == "no route"
    assert found["through"]["round_trip_ms"] > 0


@pytest.mark.netns
def test_what_it_does_not_know(lab: Lab, mesh: Mesh) -> None:
    done = hostlane("explain", "nothing", "--config", str(mesh.a.file), host=lab.a)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hostlane: found no upstream 'nothing' of the proxy on host-a; allowed: echo\n"
    done = hostlane("explain", SERVICE, "--config", str(mesh.a.file), "--to", "host-b.invalid", host=lab.a)
    assert done.returncode == 1
    assert done.stderr.startswith("hostlane: host-b.invalid does not resolve: ")
    done = hostlane("explain", SERVICE, "--config", str(mesh.a.file), "--from", "4194305", host=lab.a)
    assert (done.returncode, done.stderr) == (1, "hostlane: there is no process 4194305\n")


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    [line] = done.stderr.splitlines()
    assert done.stdout == ""
    return line


def test_nobody_answers(tmp_path: Path) -> None:
    done = hostlane("explain", SERVICE, "--socket", f"{tmp_path}/admin.sock")
    assert done.returncode == 1
    assert one_line(done) == f"hostlane: {tmp_path}/admin.sock: no such socket; is the proxy running?"


def test_wrong_usage(tmp_path: Path) -> None:
    done = hostlane("explain", SERVICE, "--config", f"{tmp_path}/missing.yaml")
    assert done.returncode == 2
    assert one_line(done) == f"hostlane: {tmp_path}/missing.yaml: no such file"
    assert hostlane("explain", SERVICE, "--config", "x", "--socket", "y").returncode == 2


@pytest.mark.netns
@pytest.mark.failure("32")
@pytest.mark.parametrize(("encoding", "dot"), [("ascii", "*"), ("latin-1", "*"), ("utf-8", "\u25cf")])
def test_every_terminal(lab: Lab, mesh: Mesh, encoding: str, dot: str) -> None:
    argv = lab.a.command([*HOSTLANE, "explain", SERVICE, "--config", str(mesh.a.file)])
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"{dot} macvlan mv0".encode(encoding) in done.stdout
