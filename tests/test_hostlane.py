"""An environment with another package called ``proxy`` or ``control``: one line at start, whoever came last."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hostlane

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """As pip installs it."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    for name in hostlane.OURS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "hostlane.py", tmp_path)
    return tmp_path


def other(site: Path, distribution: str, *files: str) -> None:
    """Another distribution comes into the same folder."""
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("raise ImportError('of another distribution')\n")
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def said(site: Path, *more: str) -> tuple[int, str, str]:
    code = f"import sys; sys.path[:0] = {[*more, str(site)]!r}; import hostlane; hostlane.main()"
    argv = [sys.executable, "-P", "-c", code, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines()[0] if done.stdout else "", done.stderr


def test_alone(site: Path) -> None:
    assert said(site) == (0, "Usage: hostlane [OPTIONS] COMMAND [ARGS]...", "")


def test_the_other_one_came_last(site: Path) -> None:
    other(site, "python-control", "control/__init__.py", "control/bdalg.py", "control/lti.py")
    code, _, line = said(site)
    assert code == 2
    what = "the package control is mixed with another one of that name (bdalg.py, lti.py), that of python-control"
    assert line == f"hostlane: {what}; {hostlane.REMEDY}\n"


def test_hostlane_came_last(site: Path) -> None:
    other(site, "proxy.py", "proxy/common/__init__.py", "proxy/core/acceptor/pool.py")
    code, _, line = said(site)
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith(
        "hostlane: the package proxy is mixed with another one of that name (common), that of proxy.py"
    )


def test_the_other_one_took_files_along(site: Path) -> None:
    (site / "control" / "__init__.py").unlink()
    code, _, line = said(site)
    assert (code, "the package control has no __init__.py here" in line) == (2, True)


def test_one_that_comes_first(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    other(elsewhere, "proxy.py", "proxy/__init__.py")
    code, _, line = said(site, str(elsewhere))
    assert code == 2
    assert line.startswith(f"hostlane: the package proxy is another one here, in {elsewhere}/proxy, that of proxy.py; ")


@pytest.mark.parametrize("name", hostlane.OURS)
def test_the_list_is_what_is_there(name: str) -> None:
    there = {
        path.name
        for path in (ROOT / name).iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }
    assert there - {"__main__.py"} == set(hostlane.OURS[name])
