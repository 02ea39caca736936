"""setup.py: everything is compiled, or nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.conftest import Project

pytestmark = pytest.mark.usefixtures("compiler")

NO_TOOLS = {"PATH": "/nonexistent", "CC": "gcc", "LDSHARED": "gcc -shared"}


def test_a_second_build_leaves_nothing_of_the_first(project: Project) -> None:
    before = project.compiled
    (project.mux / "one.py").write_text((project.mux / "one.py").read_text().replace("number = 1", "number = 2"))
    done = project.compile()
    assert done.returncode == 0, done.stderr
    assert len(project.compiled) == len(before) == 2
    assert not set(before) & set(project.compiled)
    assert project.run().stdout.startswith("compiled 4 ")


@pytest.mark.parametrize("name", ["one", "two"])
def test_what_cannot_be_compiled_leaves_nothing_of_the_rest(project: Project, name: str) -> None:
    (project.mux / f"{name}.pxd").write_text("cdef extern from *:\n    'this is no C'\n    int number\n")
    done = project.compile(HOSTLANE_COMPILE="auto")
    assert done.returncode == 0
    assert "*** hostlane: not compiled, the core runs as plain Python: " in done.stderr
    assert project.left == []
    assert project.run().stdout.startswith("python ")


def test_no_compiler_is_no_failure(project: Project) -> None:
    done = project.compile(HOSTLANE_COMPILE="auto", **NO_TOOLS)
    assert done.returncode == 0
    assert "*** hostlane: not compiled" in done.stderr
    assert project.left == []


def test_no_compiler_is_a_failure_where_it_was_asked_for(plain: Project) -> None:
    done = plain.compile(**NO_TOOLS)
    assert done.returncode != 0
    assert plain.left == []


def test_never_is_never(plain: Project) -> None:
    assert plain.compile(HOSTLANE_COMPILE="never").returncode == 0
    assert plain.left == []


def test_another_word_is_an_error(plain: Project) -> None:
    done = plain.compile(HOSTLANE_COMPILE="yes")
    assert (done.returncode, done.stderr) == (1, "HOSTLANE_COMPILE: found 'yes'; allowed: auto, never, always\n")


def test_the_compilers_warning_of_wrong_code_is_an_error(project: Project, tmp_path: Path) -> None:
    """A compiler that does not know the option is not given it."""
    asked, compiler = tmp_path / "asked", tmp_path / "gcc"
    compiler.write_text(f'#!/bin/sh\necho "$@" >>{asked}\ncase "$*" in *-fsyntax-only*) exit 1;; esac\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    assert project.compile(CC=str(compiler), LDSHARED=f"{compiler} -shared").returncode == 0
    first, *calls = asked.read_text().splitlines()
    assert "-Werror=incompatible-pointer-types" in first
    assert len(calls) == 4
    assert not [call for call in calls if "incompatible-pointer-types" in call]
    asked.unlink()
    compiler.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexec gcc "$@"\n')
    assert project.compile(CC=str(compiler), LDSHARED=f"{compiler} -shared").returncode == 0
    assert len([call for call in asked.read_text().splitlines() if "incompatible-pointer-types" in call]) == 3
