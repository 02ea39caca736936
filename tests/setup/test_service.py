"""systemd runs the proxy: what is installed, and what is refused before anything is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.errors import StartError
from proxy.setup.service import DEFAULT_CONFIG, PACKAGED, PLACES, UNITS, SystemdService, rendered, run

HOSTLANE = "/opt/hostlane/bin/hostlane"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root installs services")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with what systemd and the command have there."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / HOSTLANE.lstrip("/")).parent.mkdir(parents=True)
    (tmp_path / HOSTLANE.lstrip("/")).write_text("#!/bin/sh\n")
    (tmp_path / HOSTLANE.lstrip("/")).chmod(0o755)
    return tmp_path


def service(machine: Path, said: list[list[str]] | None = None, config: str = DEFAULT_CONFIG) -> SystemdService:
    def note(argv: Sequence[str]) -> None:
        if said is not None:
            said.append([word.replace(str(machine), "") for word in argv])

    return SystemdService(config, HOSTLANE, root=machine, run=note)


def test_what_is_installed(machine: Path) -> None:
    said: list[list[str]] = []
    made = service(machine, said)
    made.install()
    made.start()
    assert said == [
        ["systemd-sysusers", "/etc/sysusers.d/hostlane.conf"],
        ["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/hostlane.conf"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "hostlane.service"],
    ]
    unit = (machine / PLACES["hostlane.service"]).read_text()
    assert f"ExecStart={HOSTLANE} proxy --config /etc/hostlane/hostlane.yaml\n" in unit
    assert "@" not in re.sub(r"@system-service|@privileged", "", unit)
    made.install()  # again


def test_what_a_package_brought_is_used(machine: Path) -> None:
    for name, place in PACKAGED.items():
        (machine / place).parent.mkdir(parents=True, exist_ok=True)
        (machine / place).write_text(name)
    said: list[list[str]] = []
    service(machine, said).install()
    assert said[:2] == [
        ["systemd-sysusers", "/usr/lib/sysusers.d/hostlane.conf"],
        ["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/hostlane.conf"],
    ]
    assert not (machine / "etc").exists()
    service(machine, config="/srv/hostlane.yaml").install()
    assert "--config /srv/hostlane.yaml" in (machine / PLACES["hostlane.service"]).read_text()


@root_only
def test_what_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/systemctl")
    service(machine).check(["/var/lib/hostlane"])
    with pytest.raises(
        StartError, match=r"^--service: /home/me/state is in /home, which services do not see; allowed: "
    ):
        service(machine).check(["/home/me/state"])
    (machine / HOSTLANE.lstrip("/")).unlink()
    with pytest.raises(StartError, match=r"^--service: no command /opt/hostlane/bin/hostlane"):
        service(machine).check([])
    (machine / "run/systemd/system").rmdir()
    with pytest.raises(StartError, match="systemd does not run here"):
        service(machine).check([])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StartError, match="found user 1000; allowed: root"):
        service(machine).check([])


@root_only
def test_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.setup.service.USER", "nobody-of-that-name")
    with pytest.raises(StartError, match="no user nobody-of-that-name"):
        service(tmp_path).own(str(tmp_path))
    monkeypatch.setattr("proxy.setup.service.USER", "nobody")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "key").touch()
    (tmp_path / "identity").symlink_to("set")
    service(tmp_path).own(str(tmp_path))
    owners = {path.lstat().st_uid for path in (tmp_path, *tmp_path.rglob("*"))}
    assert len(owners) == 1
    assert owners != {0}


def test_commands_that_fail() -> None:
    with pytest.raises(StartError, match=r"^sh -c .*: no such unit$"):
        run(["sh", "-c", "echo no such unit >&2; exit 1"])
    with pytest.raises(StartError, match=r"^no-such-command: no such file or directory$"):
        run(["no-such-command"])


@pytest.mark.parametrize(
    ("path", "word"),
    [("/etc/a.yaml", "/etc/a.yaml"), ("/srv/a b.yaml", '"/srv/a b.yaml"'), ('/x/%"', '"/x/%%\\""'), ("/a$b", "/a$$b")],
)
def test_paths_in_units(path: str, word: str) -> None:
    assert f"--config {word}\n" in rendered("hostlane.service", HOSTLANE, path)


@pytest.mark.parametrize("unit", [*UNITS, "hostlane-control.service"])
def test_systemd_takes_the_units(tmp_path: Path, unit: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    file = tmp_path / unit
    file.write_text(rendered(unit, "/bin/true", DEFAULT_CONFIG).replace("man:hostlane(1)", "man:true(1)"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit in line]) == (0, []), done.stderr


@pytest.mark.parametrize("unit", ["hostlane.service", "hostlane-control.service"])
def test_they_are_exposed_little(tmp_path: Path, unit: str) -> None:
    """`systemd-analyze security`: 2.0 at most, of 10."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    file = tmp_path / unit
    file.write_text(rendered(file.name, "/bin/true", DEFAULT_CONFIG))
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]
