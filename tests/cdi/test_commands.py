from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.cli.main import hostlane
from proxy.cdi import build
from proxy.cdi.spec import DEVICE
from proxy.demo.mesh import HOSTLANE
from tests.door.engines import FakeEngine
from tests.tools.smalldisk import SmallDisk


@pytest.fixture(autouse=True)
def shipped(hook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILED", str(hook))


def invoke(*words: str) -> Result:
    return CliRunner().invoke(hostlane, ["cdi", *words])


def test_installed_and_removed(tmp_path: Path) -> None:
    place = f"--directory={tmp_path}"
    done = invoke("install", place, "--strict", "--door=/run/somewhere")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{tmp_path}/hostlane.json: device {DEVICE}, strict, hook {tmp_path}/hostlane-hook",
        "the door listens for it with: door: {cdi: /run/somewhere}",
    ]
    [device] = json.loads((tmp_path / "hostlane.json").read_text())["devices"]
    assert device["containerEdits"]["hooks"][0]["args"][2] == "/run/somewhere/hook.sock"
    with FakeEngine(tmp_path / "engine.sock"):
        done = invoke("remove", place, f"--engine={tmp_path}/engine.sock")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/hostlane.json: removed\n{tmp_path}/hostlane-hook: removed\n"
    done = invoke("remove", place)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"hostlane: {tmp_path}/hostlane.json: no such file: there is nothing to remove\n"


def test_containers_that_name_it_can_start_all_the_same(tmp_path: Path) -> None:
    place, engine = f"--directory={tmp_path}", f"--engine={tmp_path}/engine.sock"
    invoke("install", place)
    with FakeEngine(tmp_path / "engine.sock") as fake:
        for number in range(7):
            fake.put(f"c{number}", "f00", {})
            fake.containers[f"c{number}"]["HostConfig"]["DeviceRequests"] = [{"DeviceIDs": [DEVICE]}]
        who = "c0-name, c1-name, c2-name, c3-name, c4-name and 2 more"
        done = invoke("remove", place, engine)
        assert done.stdout.splitlines() == [
            f"{tmp_path}/hostlane-hook: removed",
            f"{DEVICE} stays, without hooks: named by {who}; --purge removes it all the same",
        ]
        assert done.exit_code == 0
        assert (tmp_path / "hostlane.json").exists()
        done = invoke("remove", place, engine, "--purge")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/hostlane.json: removed\n")
    assert done.stderr == f"without {DEVICE} these do not start again: {who}\n"


def test_nobody_knows_who_names_it(tmp_path: Path) -> None:
    place = f"--directory={tmp_path}"
    invoke("install", place)
    done = invoke("remove", place, f"--engine={tmp_path}/none.sock")
    assert done.exit_code == 0
    assert f"the engine does not say who names it ({tmp_path}/none.sock: No such file or directory)" in done.stdout
    assert (tmp_path / "hostlane.json").exists()
    assert invoke("remove", place, f"--engine={tmp_path}/none.sock", "--purge").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke("install", f"--directory={tmp_path}", f"--door=/{'x' * 120}")
    assert done.exit_code == 2
    assert ", a path of 131 bytes; allowed: a path of at most 107 bytes" in done.stderr
    (tmp_path / "file").touch()
    done = invoke("install", f"--directory={tmp_path}/file/cdi", f"--hook={tmp_path}/hook")
    assert (done.exit_code, done.stderr) == (2, f"hostlane: {tmp_path}/file/cdi: Not a directory\n")
    monkeypatch.setattr(build, "COMPILED", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = invoke("install", f"--directory={tmp_path}")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "this installation was made without the hook" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.netns
def test_a_full_disk(tmp_path: Path, hook: Path) -> None:
    """Nothing is there then that would keep a container from starting."""
    with SmallDisk(tmp_path, 256 << 10) as disk:
        argv = disk.argv([*HOSTLANE, "cdi", "install", f"--directory={tmp_path}"])
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"hostlane: {tmp_path}/hostlane-hook: No space left on device\n"
        found = subprocess.run(disk.argv(["ls", "-A", str(tmp_path)]), capture_output=True, text=True, check=True)
        assert found.stdout == ""


@pytest.mark.netns
def test_a_file_system_where_nothing_may_be_run(tmp_path: Path) -> None:
    """As /run is on many hosts."""
    with SmallDisk(tmp_path) as disk:
        subprocess.run(disk.argv(["mount", "-o", "remount,noexec", str(tmp_path)]), check=True)
        argv = disk.argv([*HOSTLANE, "cdi", "install", f"--directory={tmp_path}"])
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "hostlane-hook: it may not be run there (is the file system mounted noexec?); allowed: " in done.stderr
        found = subprocess.run(disk.argv(["ls", "-A", str(tmp_path)]), capture_output=True, text=True, check=True)
        assert found.stdout == ""
