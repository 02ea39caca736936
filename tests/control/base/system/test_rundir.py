"""The directory of the sockets that command: made closed, refused open."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from control.base.errors import StartError
from control.base.system.rundir import make_run_dir
from control.base.system.unixsock import bind_unix
from tests.tools.nobody import as_nobody

pytestmark = pytest.mark.failure("21")

GROUP = 65531


def rights(path: Path) -> tuple[int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_gid


@pytest.mark.parametrize("umask", [0o022, 0, 0o077])
def test_it_is_made_for_its_user_alone(directory: Path, umask: int) -> None:
    path = directory / "not" / "there" / "run"
    before = os.umask(umask)
    try:
        make_run_dir(str(path), None)
        make_run_dir(str(path), None)
        bind_unix(f"{path}/admin.sock").close()
    finally:
        os.umask(before)
    assert rights(path)[0] == 0o700
    assert rights(path.parent)[0] == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to any group")
@pytest.mark.parametrize("there", [None, 0o700, 0o710])
def test_a_group_may_enter_and_not_look_around(directory: Path, there: int | None) -> None:
    path = directory / "run"
    if there is not None:
        path.mkdir(there)
    make_run_dir(str(path), GROUP)
    assert rights(path) == (0o710, GROUP)


@pytest.mark.parametrize(
    ("mode", "group", "allowed"),
    [
        (0o755, None, "0700"),
        (0o710, None, "0700"),
        (0o701, None, "0700"),
        (0o755, GROUP, f"0710 and group {GROUP}"),
        (0o750, GROUP, f"0710 and group {GROUP}"),
        (0o1777, GROUP, f"0710 and group {GROUP}"),
    ],
)
def test_one_that_others_may_enter_is_refused_and_left_as_it_is(
    directory: Path, mode: int, group: int | None, allowed: str
) -> None:
    path = directory / "run"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StartError) as caught:
        make_run_dir(str(path), group)
    line = str(caught.value)
    assert line.startswith(f"run_dir {path}: it has mode {mode:04o}; allowed: {allowed}, as sockets that command live")
    assert "docs/upgrade.md" in line
    assert "\n" not in line
    assert rights(path)[0] == mode


def test_what_is_no_directory_is_one_line(directory: Path) -> None:
    (directory / "file").write_text("")
    for path, said in ((f"{directory}/file", "Not a directory"), (f"{directory}/file/run", "is not a directory")):
        with pytest.raises(StartError, match=f"^run_dir {path}: .*{said}"):
            make_run_dir(path, None)


@pytest.mark.nobody
def test_one_of_another_user_is_refused(directory: Path) -> None:
    """Who owns the directory could put a socket of its own in the place of ours."""
    asks = "import sys; from control.base.system.rundir import make_run_dir; make_run_dir(sys.argv[1], None)"
    os.chown(directory, 65533, 0)
    done = subprocess.run(
        [*as_nobody(), sys.executable, "-c", asks, str(directory)], capture_output=True, text=True, check=False
    )
    said = f"run_dir {directory}: it belongs to user 65533; allowed: root, or user 65534"
    assert done.stderr.splitlines()[-1].endswith(said)
