from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from control.base.reading.filemount import mount_source

SCRIPT = """
import os, subprocess, sys
from control.base.reading.filemount import is_gone, mount_source
source, seen = sys.argv[1:]
subprocess.run(["mount", "--bind", source, seen], check=True)
def say(source):
    print(source.rpartition("/")[2] if is_gone(source) else os.path.basename(source), is_gone(source))
say(mount_source(seen))
os.rename(source, source + "~")
say(mount_source(seen))
os.unlink(source + "~")
say(mount_source(seen))
assert mount_source(os.path.dirname(seen)) is None
"""


@pytest.mark.netns
@pytest.mark.failure("30")
@pytest.mark.parametrize("name", ["a.yaml", "a name\twith\\things.yaml"])
def test_a_mount_of_one_file(tmp_path: Path, name: str) -> None:
    source, seen = tmp_path / name, tmp_path / f"seen {name}"
    source.touch()
    seen.touch()
    link = tmp_path / "link"
    link.symlink_to(seen)
    command = ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(source), str(link)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} False", f"{name}~ False", "deleted True"]


@pytest.mark.parametrize("path", ["/proc/self/status", "/", "/nowhere/at/all", "/dev/null"])
def test_what_is_none(path: str) -> None:
    assert mount_source(path) is None
