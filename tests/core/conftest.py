"""A project like ours, with a core of two small modules that know each other's layout: it compiles in seconds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SET = ("proxy.mux.one", "proxy.mux.two")
FILES = {
    "one.py": "class One:\n    def __init__(self) -> None:\n        self.number = 1\n",
    "one.pxd": "cdef class One:\n    cdef public int number\n",
    "two.py": "from proxy.mux.one import One\n\n\ndef double(one: One) -> int:\n    return one.number * 2\n",
    "two.pxd": "from proxy.mux.one cimport One\n\ncpdef int double(One one) except? -1\n",
}
SAY = """
from proxy.core.finder import core
from proxy.mux import one, two

print(core(), two.double(one.One()), two.__file__)
"""


class Project:
    """A copy of what chooses and what compiles, around other modules."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("proxy/core", "control/base"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for file in ("setup.py", "proxy/__init__.py", "control/__init__.py"):
            shutil.copy(ROOT / file, root / file)
        modules = root / "proxy/core/modules.py"
        ours = re.compile(r"^COMPILED = \(.*?^\)", re.DOTALL | re.MULTILINE)
        text, found = ours.subn(f"COMPILED = {SET!r}", modules.read_text())
        assert found == 1
        modules.write_text(text)
        self.mux = root / "proxy/mux"
        self.mux.mkdir()
        for name, text in {"__init__.py": "", **FILES}.items():
            (self.mux / name).write_text(text)

    def compile(self, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        return self._run(command, {"HOSTLANE_COMPILE": "always", **settings})

    def run(self, code: str = SAY, **settings: str) -> subprocess.CompletedProcess[str]:
        """In a process that has this project's ``proxy`` in place of ours."""
        return self._run([sys.executable, "-c", code], {"HOSTLANE_PURE": "", **settings})

    def _run(self, command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"} | settings
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    @property
    def compiled(self) -> list[Path]:
        """What lies beside the sources, in order of the modules' names."""
        return sorted(self.mux.glob("*.so"))

    @property
    def left(self) -> list[Path]:
        """Every extension, wherever it lies."""
        return sorted(self.root.rglob("*.so"))


@pytest.fixture
def plain(tmp_path: Path) -> Project:
    """Never compiled."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    _need_compiler()
    project = Project(tmp_path_factory.mktemp("compiled") / "project")
    done = project.compile()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def project(_compiled_once: Project, tmp_path: Path) -> Project:
    """Compiled in place; a copy, which a test may change."""
    copy = Project.__new__(Project)
    copy.root = shutil.copytree(_compiled_once.root, tmp_path / "project")
    copy.mux = copy.root / "proxy/mux"
    return copy


@pytest.fixture
def compiler() -> None:
    """For tests that compile themselves."""
    _need_compiler()


def _need_compiler() -> None:
    if missing := [name for name in ("Cython", "setuptools") if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed: make venv")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
