"""What systemd says of units, where it does not run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from control.base.system.systemd import Daemon, rendered


def verify(file: Path, text: str) -> tuple[int, list[str]]:
    """systemd-analyze's exit code and lines about a unit with that text, which is written to `file`."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    file.write_text(re.sub(r"man:hostlane\S*\(1\)", "man:true(1)", text))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False)
    return done.returncode, [line for line in done.stderr.splitlines() if file.name in line]


def complaints(daemon: Daemon, folder: Path) -> list[str]:
    """Of all units of a daemon; and where its service is more exposed than 2.0 of 10 (`systemd-analyze security`)."""
    found = []
    for name in daemon.files:
        if name.endswith(".service"):
            code, lines = verify(folder / name, rendered(daemon, name, "/bin/true", daemon.config))
            found += lines if lines else [f"{name}: {code}"] * (code != 0)
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
    done = subprocess.run(
        [*argv, str(folder / f"{daemon.name}.service")], capture_output=True, text=True, check=False
    )
    return found + done.stdout.splitlines()[-1:] * (done.returncode != 0)
