"""The one list of what is compiled, and what a file is called after."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from proxy.core import modules
from tests.core.conftest import ROOT, Project


@pytest.mark.parametrize("module", modules.COMPILED)
def test_each_module_runs_uncompiled_too(module: str) -> None:
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_declarations_stand_beside_modules_of_the_set() -> None:
    declared = {str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in ROOT.glob("proxy/**/*.pxd")}
    assert declared <= set(modules.COMPILED)


@pytest.mark.parametrize("path", sorted(ROOT.glob("proxy/**/*.pxd")), ids=lambda path: path.stem)
def test_declarations_only(path: Path) -> None:
    """What a module does stands in its .py: a .pxd has no Python function, no body and no value."""
    lines = [line.partition("#")[0].rstrip() for line in path.read_text().splitlines()]
    kinds = re.compile(r" *(cdef|cpdef|cimport|from \S+ cimport|ctypedef|@cython\.\w+)")
    assert [line for line in lines if line and not kinds.match(line)] == []
    assert [line for line in lines if "=" in line.replace("=*", "") and "@cython" not in line] == []
    assert [line for line in lines if "(" in line and line.endswith(":") and " class " not in line] == []


def test_the_build_is_known_by_names_and_contents(plain: Project) -> None:
    root, first = str(plain.root), modules.build_id(str(ROOT))
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert modules.build_id(str(ROOT)) == first
    assert modules.build_id(root) != first


def test_a_file_is_not_what_the_import_system_looks_for() -> None:
    """It would load one module compiled and the next one plain."""
    name = os.path.basename(modules.extension("proxy.mux.replay", "0123456789abcdef"))
    assert name == f"replay.core-0123456789abcdef{EXTENSION_SUFFIXES[0]}"
    assert name not in {f"replay{suffix}" for suffix in EXTENSION_SUFFIXES}


def test_nothing_is_built_where_there_is_no_folder(tmp_path: Path) -> None:
    assert modules.built(str(tmp_path)) == set()


def test_what_make_installs_is_what_a_build_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["build"] == project["build-system"]["requires"]
