"""Compiled all together, plain all together, or refused in one line; tried on a small core that is really compiled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import proxy
from control.base.errors import StartError
from proxy.core import finder, modules
from tests.core.conftest import ROOT, Project


def test_compiled_modules_run_where_they_are(project: Project) -> None:
    kind, number, file = project.run().stdout.split()
    assert (kind, number, Path(file)) == ("compiled", "2", project.compiled[1])


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_asks_for_the_plain_modules(project: Project, value: str) -> None:
    assert project.run(HOSTLANE_PURE=value).stdout.startswith("compiled ")


def test_the_plain_modules_run_where_nothing_is_compiled(plain: Project) -> None:
    kind, number, file = plain.run().stdout.split()
    assert (kind, number, Path(file)) == ("python", "2", plain.mux / "two.py")


def test_the_plain_modules_run_where_they_are_asked_for(project: Project) -> None:
    kind, _, file = project.run(HOSTLANE_PURE="1").stdout.split()
    assert (kind, Path(file)) == ("python", project.mux / "two.py")


@pytest.mark.parametrize("value", ["yes", "2", " 1", "true"])
def test_what_else_it_says_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(finder.PURE_VARIABLE, value)
    with pytest.raises(StartError) as caught:
        finder.install()
    assert str(caught.value) == f"HOSTLANE_PURE: found {value!r}; allowed: 1 (the plain modules run), 0 or nothing"


def refusal(project: Project) -> str:
    """The one line; nothing of the set was loaded."""
    done = project.run()
    assert (done.returncode, done.stdout) == (1, "")
    kind, _, line = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "control.base.errors.StartError"
    return line


AGAIN = "compile again (make core, or pip install), or set HOSTLANE_PURE=1 to run the plain modules"


@pytest.mark.parametrize("name", ["one.py", "two.py", "one.pxd"])
def test_a_module_that_was_compiled_from_another_source_is_refused(project: Project, name: str) -> None:
    source = project.mux / name
    source.write_text(source.read_text() + "# changed\n")
    said = f"{project.compiled[0]} was compiled from other sources than these: {AGAIN}"
    assert refusal(project) == said
    assert project.run(HOSTLANE_PURE="1").stdout.startswith("python ")


def test_a_new_time_is_no_new_source(project: Project) -> None:
    os.utime(project.mux / "one.py")
    assert project.run().stdout.startswith("compiled ")


def test_half_a_set_is_refused(project: Project) -> None:
    missing = project.compiled[1]
    missing.unlink()
    assert refusal(project) == f"{missing} is missing, others are there: {AGAIN}"


def test_a_module_of_another_build_is_refused(project: Project) -> None:
    """One of the files is from a checkout of yesterday."""
    old = project.compiled[1]
    build = old.name.partition(modules.MARK)[2].partition(".")[0]
    stray = old.with_name(old.name.replace(build, "0123456789abcdef"))
    old.rename(stray)
    assert refusal(project) == f"{stray} was compiled from other sources than these: {AGAIN}"


def test_other_interpreters_modules_are_not_ours(plain: Project) -> None:
    (plain.mux / "one.core-0123456789abcdef.cpython-399-x86_64-linux-gnu.so").write_bytes(b"")
    assert plain.run().stdout.startswith("python ")


def test_our_own_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(finder.PURE_VARIABLE, "")
    before = list(sys.meta_path)
    if finder.core() == "compiled":
        finder.install()
    assert sys.meta_path == before


def test_what_runs_is_what_is_said() -> None:
    """Of this very process: each module of the set is what `core` calls it."""
    for module in modules.COMPILED:
        __import__(module)
        file = sys.modules[module].__file__
        assert file is not None
        assert file.endswith(".so") == (finder.core() == "compiled")
    assert os.path.dirname(str(proxy.__file__)) == str(ROOT / "proxy")
