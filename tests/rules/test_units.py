"""The systemd units are examples that somebody will copy: they parse, and their commands exist."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "configs" / "systemd"
UNITS = [SYSTEMD / name for name in ("hostlane.service", "hostlane.socket", "hostlane-net.service")]
PROGRAM = "/opt/hostlane/bin/hostlane"


def section(path: Path, name: str) -> list[str]:
    """The lines of a section that say something."""
    text = path.read_text().partition(f"[{name}]\n")[2].partition("\n[")[0]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_there_are_units() -> None:
    assert sorted(UNITS) == sorted(SYSTEMD.iterdir())


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_it_parses(path: Path) -> None:
    # Keys may stand there more than once: a socket unit lists sockets so.
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.read(path)
    assert parser.sections()


def test_commands_exist() -> None:
    commands = [line.partition("=")[2] for line in section(UNITS[0], "Service") if line.startswith("Exec")]
    assert len(commands) == 2
    for command in commands:
        program, *words = command.split()
        assert program == PROGRAM
        found = CliRunner().invoke(cli.hostlane, [words[0], "--help"])
        assert found.exit_code == 0
        assert all(word in found.output for word in words[1:] if word.startswith("--"))


@pytest.mark.parametrize(("path", "page"), [*zip(UNITS, ("upgrade.md", "upgrade.md", "network.md"), strict=True)])
def test_the_documentation_says_how_it_is_installed(path: Path, page: str) -> None:
    """What is typed in the emulated machine (tests/vm) is what stands there."""
    text = (ROOT / "docs" / page).read_text()
    assert text.count(f"```sh\ncp configs/systemd/{path.name} /etc/systemd/system/\nsystemctl daemon-reload\n") == 1


def test_the_network_has_commands_too() -> None:
    for line in section(UNITS[2], "Service"):
        if line.startswith("Exec"):
            program, group, command, *_ = line.partition("=")[2].split()
            assert (program, group) == (PROGRAM, "net")
            assert CliRunner().invoke(cli.hostlane, [group, command, "--help"]).exit_code == 0


def test_it_is_told_what_the_proxy_tells() -> None:
    """Type=notify is what READY, RELOADING, STOPPING and MAINPID are for."""
    assert "Type=notify" in section(UNITS[0], "Service")


def test_the_documentation_shows_it() -> None:
    (shown,) = re.findall(r"```ini\n\[Service\]\n(.*?)```", (ROOT / "docs" / "upgrade.md").read_text(), re.DOTALL)
    assert section(UNITS[0], "Service")[: len(shown.splitlines())] == shown.splitlines()


@pytest.mark.failure("30")
@pytest.mark.parametrize("path", [UNITS[0], UNITS[2]], ids=lambda path: path.name)
def test_what_comes_late_at_boot_is_waited_for(path: Path) -> None:
    """systemd gives a service up for good after five starts in ten seconds, unless it is told not to."""
    assert "StartLimitIntervalSec=0" in section(path, "Unit")
    assert {"Restart=on-failure", "RestartSec=1"} <= set(section(path, "Service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("path", "exposed"), [(UNITS[0], 80), (UNITS[2], 30)], ids=["proxy", "net"])
def test_they_keep_few_privileges_that_they_never_use(path: Path, exposed: int) -> None:
    """Of 100, and 98 without any of the settings. The rest is that they run as root, with a network."""
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={exposed}", "--no-pager", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    for path in UNITS:
        # The program is not installed here; that one is.
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, sys.executable))
    argv = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "hostlane" in line]
    assert complaints == []
