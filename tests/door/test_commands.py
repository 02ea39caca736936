from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from control.cli.main import hostlane
from proxy.demo.mesh import HOSTLANE
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
