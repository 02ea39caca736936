"""systemd runs a daemon: what is installed, and what is refused before anything is."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from control.base.errors import StartError
from control.base.system.systemd import Daemon, SystemdService, place, rendered, run
from control.cli.daemon import CONTROL

HOSTLANE = "/opt/hostlane/bin/hostlane"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root installs services")
UNIT, USERS = "hostlane-control.service", "hostlane-control.sysusers"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with what systemd and the command have there."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / HOSTLANE.lstrip("/")).parent.mkdir(parents=True)
    (tmp_path / HOSTLANE.lstrip("/")).write_text("#!/bin/sh\n")
    (tmp_path / HOSTLANE.lstrip("/")).chmod(0o755)
    return tmp_path


def service(machine: Path, said: list[list[str]] | None = None, config: str = CONTROL.config) -> SystemdService:
    def note(argv: Sequence[str]) -> None:
        if said is not None:
            said.append([word.replace(str(machine), "") for word in argv])

    return SystemdService(CONTROL, config, HOSTLANE, root=machine, run=note)


def test_what_is_installed(machine: Path) -> None:
    said: list[list[str]] = []
    made = service(machine, said)
    made.install({"hostlane-control.socket": "[Socket]\n"})
    made.start("hostlane-control.socket")
    assert said == [
        ["systemd-sysusers", "/etc/sysusers.d/hostlane-control.conf"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "hostlane-control.socket", "hostlane-control.service"],
    ]
    unit = (machine / place(UNIT)).read_text()
    assert f"ExecStart={HOSTLANE} control --config /etc/hostlane/control.yaml\n" in unit
    assert "@" not in re.sub(r"@system-service|@privileged", "", unit)
    assert (machine / "etc/systemd/system/hostlane-control.socket").read_text() == "[Socket]\n"
    made.install()  # again


def test_others_may_read_it_whatever_the_umask(machine: Path) -> None:
    before = os.umask(0o077)
    try:
        service(machine).install()
    finally:
        os.umask(before)
    assert (machine / place(UNIT)).stat().st_mode & 0o777 == 0o644


def test_what_a_package_brought_is_used(machine: Path) -> None:
    for name in CONTROL.files:
        at = machine / place(name, packaged=True)
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(name)
    said: list[list[str]] = []
    service(machine, said).install()
    assert said[0] == ["systemd-sysusers", "/usr/lib/sysusers.d/hostlane-control.conf"]
    assert not (machine / "etc").exists()
    service(machine, config="/srv/control.yaml").install()
    assert "--config /srv/control.yaml" in (machine / place(UNIT)).read_text()


@root_only
def test_what_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/systemctl")
    fine = {"state_dir": "/var/lib/hostlane-control", "store.sqlite.path": "/var/lib/hostlane-control/a/store.db"}
    service(machine).check(fine)
    hidden = r"^--service: /home/me/state is in /home, which services do not see; allowed: "
    with pytest.raises(StartError, match=hidden):
        service(machine).check({"state_dir": "/home/me/state"})
    with pytest.raises(StartError, match=r"^--service: /root/c.yaml is in /root, which"):
        service(machine, config="/root/c.yaml").check(fine)
    for key in ("state_dir", "run_dir"):
        allowed = CONTROL.writes[key]
        line = rf"^--service: found {key} /srv/x; allowed: {allowed}, where the service may write$"
        with pytest.raises(StartError, match=line):
            service(machine).check({key: "/srv/x"})
        with pytest.raises(StartError, match=f"found {key} {allowed}-2; allowed"):
            service(machine).check({key: f"{allowed}-2"})
    (machine / HOSTLANE.lstrip("/")).unlink()
    with pytest.raises(StartError, match=r"^--service: no command /opt/hostlane/bin/hostlane"):
        service(machine).check({})
    (machine / "run/systemd/system").rmdir()
    with pytest.raises(StartError, match="systemd does not run here"):
        service(machine).check({})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StartError, match="found user 1000; allowed: root"):
        service(machine).check({})


def of_user(name: str, root: Path) -> SystemdService:
    return SystemdService(Daemon(name, "control.cli", (), "/x", {}), "/x", HOSTLANE, root=root)


@root_only
def test_whose_the_files_are(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no user nobody-of-that-name"):
        of_user("nobody-of-that-name", tmp_path).own(str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "key").touch()
    (tmp_path / "identity").symlink_to("set")
    (tmp_path / "dangling").symlink_to("nowhere")
    of_user("nobody", tmp_path).own(str(tmp_path))
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
    assert f"--config {word}\n" in rendered(CONTROL, UNIT, HOSTLANE, path)
