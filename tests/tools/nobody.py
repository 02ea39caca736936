"""Programs that run as nobody: from this checkout, or from a copy where nobody may not read it or not its Python."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SETPRIV = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_TRY = ("-P", "-c", "import control.cli.main, proxy")

_copies: list[Path] = []


def as_nobody() -> tuple[str, ...]:
    """What stands before ``sys.executable`` and its arguments, so that nobody runs them and they find Hostlane.

    AssertionError where `is_shut_out` says why there is no such thing.
    """
    prefix, complaint = _found()
    assert complaint is None, complaint
    return prefix


def is_shut_out() -> str | None:
    """Why hostlane cannot run as nobody here; None: it can."""
    return _found()[1]


def remove_copy() -> None:
    """At the end of the session."""
    _found.cache_clear()
    while _copies:
        shutil.rmtree(_copies.pop())


@functools.cache
def _found() -> tuple[tuple[str, ...], str | None]:
    """What `as_nobody` and `is_shut_out` say."""
    if (complaint := _complaint([*SETPRIV, sys.executable, *_TRY])) is None:
        return SETPRIV, None
    if os.geteuid() != 0:
        return SETPRIV, f"only root can be nobody: {complaint}"
    _copies.append(Path(tempfile.mkdtemp(prefix="hostlane-tests-nobody-")))
    prefix = copied(_copies[-1])
    if complaint := _complaint([*prefix, sys.executable, *_TRY]):
        complaint = f"nobody may not run this checkout, nor a copy in {tempfile.gettempdir()}: {complaint}"
    return prefix, complaint


def copied(into: Path, python: Path | None = None) -> tuple[str, ...]:
    """Copy Hostlane and what it imports to a folder that everybody may read, and `as_nobody` that runs from there.

    In place of the environment's Python the one that it was made from runs; or a copy of that, where nobody may not.

    Args:
        python: the one that the environment was made from.
    """
    packages = into / "packages"
    for name in ("proxy", "control"):
        shutil.copytree(ROOT / name, packages / name)
    for name in _needed("hostlane", set()):
        _copy_distribution(name, packages)
    environment = {"PYTHONPATH": str(packages)}
    python = python or Path(sys.base_prefix, "bin", _version())
    # `env`, as setpriv itself still finds its program with root's rights.
    if _complaint([*SETPRIV, "env", str(python), "-c", ""]):
        environment["PYTHONHOME"] = str(into / "python")
        environment["LD_LIBRARY_PATH"] = str(into / "python" / "lib")
        python = _copy_python(into / "python", python)
    subprocess.run(["chmod", "-R", "a+rX", str(into)], check=True)
    settings = [f"{key}={value}" for key, value in environment.items()]
    # The first argument is the environment's Python: `sh` takes it away.
    return *SETPRIV, "env", *settings, "sh", "-c", 'shift; exec "$0" "$@"', str(python)


def _complaint(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        return f"{error.filename}: not installed"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return None


def _needed(name: str, known: set[str]) -> set[str]:
    """The distributions that one needs to run, and those that these need."""
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.name not in known and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            known.add(requirement.name)
            _needed(requirement.name, known)
    return known


def _copy_distribution(name: str, into: Path) -> None:
    for file in metadata.files(name) or []:
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.exists():  # not its commands
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into / file)  # with its time, which what was compiled of it names


def _version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _copy_python(into: Path, python: Path) -> Path:
    """An interpreter finds its library by where it lies itself."""
    library = Path(sysconfig.get_path("stdlib"))
    unused = shutil.ignore_patterns("site-packages", "test", "config-*")
    shutil.copytree(library, into / "lib" / _version(), ignore=unused)
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy(shared, into / "lib")
    (into / "bin").mkdir()
    return Path(shutil.copy(python, into / "bin" / _version()))
