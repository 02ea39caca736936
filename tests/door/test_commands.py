from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from control.cli.main import hostlane
from proxy.demo.mesh import HOSTLANE
from proxy.door.messages import SOCKET, Hello, Shown
from tests.door.conftest import DIRECTORY
from tests.door.engines import FakeEngine
from tests.tools.process import Process

HEAD = "host: host-a\nlinks: {listen: 127.0.0.1:7600, security: none}\n"


def test_a_configuration_without_a_door(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(HEAD)
    done = CliRunner().invoke(hostlane, ["door", "--config", str(file)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{file}: door: missing; allowed: ")


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(HEAD + "door: {user: null}\n")
    done = CliRunner().invoke(hostlane, ["door", "--config", str(file)])
    assert (done.exit_code, done.stderr) == (
        2,
        f"{file}:3: door.user: found nothing; allowed: a name or a numeric id\n",
    )


def test_it_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{HEAD}door: {{directory: {tmp_path}/door, engine: {tmp_path}/none.sock, user: root}}\n")
    with Process([*HOSTLANE, "door", "--config", str(file)]) as door:
        door.wait_for("door ready")
        door.wait_for("the engine does not answer; what is open stays open")
        assert door.stop() == 0
        assert door.log[-1]["event"] == "door stopped"
    assert list((tmp_path / "door").iterdir()) == []


def test_a_directory_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{HEAD}door: {{directory: {file}/door}}\n")
    process = Process([*HOSTLANE, "door", "--config", str(file)])
    process.start()
    assert process.wait() == 2
    [line] = process.log
    assert line["text"].startswith(f"hostlane: door.directory {file}/door: ")


def test_whether_it_is_alive(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{HEAD}door: {{directory: {tmp_path}/door, engine: {tmp_path}/none.sock, user: root}}\n")

    def alive(command: str) -> tuple[int, str]:
        done = CliRunner().invoke(hostlane, [command, "--alive", "--config", str(file)])
        return done.exit_code, done.stderr

    nobody = (1, f"hostlane: nobody answers in {tmp_path}/door\n")
    for command, ready in (("door", "door ready"), ("attach-service", "attach service ready")):
        assert alive(command) == nobody
        with Process([*HOSTLANE, command, "--config", str(file)]) as process:
            process.wait_for(ready)
            assert alive(command) == (0, "")
            assert process.stop() == 0
        assert alive(command) == nobody
    assert not [entry for entry in process.log if entry["event"] == "proxy gone"]


@pytest.mark.netns
def test_it_stays_until_a_proxy_has_the_listeners(tmp_path: Path, namespace: Callable[[], str]) -> None:
    file = tmp_path / "a.yaml"
    where = f"directory: {tmp_path}/door, engine: {tmp_path}/engine.sock, namespaces: {DIRECTORY}, user: root"
    file.write_text(f"{HEAD}door: {{{where}}}\n")
    with FakeEngine(tmp_path / "engine.sock") as engine, Process([*HOSTLANE, "door", "--config", str(file)]) as door:
        engine.put("a", namespace(), {"hostlane.use": "redis@127.77.0.2:6379"})
        door.wait_for("following the engine")
        engine.happen("start", "a")
        door.wait_for("container entered")
        os.kill(door.pid, signal.SIGTERM)
        door.wait_for("waiting for a proxy to leave the listeners to")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as proxy:
            proxy.connect(f"{tmp_path}/door/{SOCKET}")
            for message in (Hello(), Shown()):
                proxy.send(msgspec.json.encode(message))
            assert door.wait() == 0
