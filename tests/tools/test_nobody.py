"""A copy that nobody can run, from a checkout and with a Python that nobody may reach."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import nobody

pytestmark = pytest.mark.netns  # root

CODE = "import os, proxy, sys, control.cli.main; print(os.getuid(), proxy.__file__, os.__file__)"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below one that everybody may enter, as tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="hostlane-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run(prefix: tuple[str, ...]) -> list[str]:
    argv = [*prefix, sys.executable, "-P", "-c", CODE]
    return subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_a_copy(folder: Path) -> None:
    (folder / "copy").mkdir(mode=0o700)
    uid, found, _library = run(nobody.copied(folder / "copy"))
    assert (uid, found) == ("65534", f"{folder}/copy/packages/proxy/__init__.py")


def test_a_copy_of_python_too(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(Path(sys.base_prefix, "bin", Path(sys.executable).resolve().name))
    uid, found, library = run(nobody.copied(folder / "copy", closed / "python"))
    assert (uid, found) == ("65534", f"{folder}/copy/packages/proxy/__init__.py")
    assert library.startswith(f"{folder}/copy/python/lib/")
