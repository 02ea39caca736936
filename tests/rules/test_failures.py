"""Each kind of failure in docs/failures.md has a test that bears its mark, and no test bears a mark that is not there.

A mark is the number of an entry up to 20, ``failure(4)``, or the name of a later one as a string, ``failure("21a")``,
``failure("22")``; ``failure("21b-f")`` is part f of entry 21b.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ENTRIES = re.findall(r"^\*\*(\d+[a-z]?)\. ", (TESTS.parent / "docs" / "failures.md").read_text(), re.MULTILINE)


def marks(source: str) -> Iterator[int | str]:
    """The arguments of each ``pytest.mark.failure(...)`` in a source, be it on one test or for a whole module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.failure":
            yield from (ast.literal_eval(argument) for argument in node.args)


@functools.cache
def borne() -> dict[str, list[str]]:
    """Entry -> the test files that bear its mark, or that of one of its parts."""
    found: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for mark in marks(path.read_text()):
            found.setdefault(str(mark).partition("-")[0], []).append(str(path.relative_to(TESTS)))
    return found


def test_the_entries_are_found() -> None:
    assert [*map(str, range(1, 21))] == ENTRIES[:20]
    assert len(ENTRIES) == len(set(ENTRIES))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_test_bears_the_mark(entry: str) -> None:
    assert borne().get(entry), f"no test is marked failure({entry})"


def test_each_mark_has_an_entry() -> None:
    unknown = {mark: files for mark, files in borne().items() if mark not in ENTRIES}
    assert not unknown, f"docs/failures.md has no entry for {unknown}"


def test_marks_are_read() -> None:
    source = "pytestmark = [pytest.mark.failure(1, 20)]\n@pytest.mark.failure(3, '21b-f')\ndef test_it(): ...\n"
    assert sorted(marks(source), key=str) == [1, 20, "21b-f", 3]


def amiss(mark: int | str) -> bool:
    """Whether a mark is written as those of its kind are not: who looks for one way of writing misses it."""
    number = int(re.match(r"\d*", str(mark)).group() or 0)  # type: ignore[union-attr]  # it matches the empty string too
    return isinstance(mark, int) != (number <= 20)


@pytest.mark.parametrize("mark", [0, 1, 20, "21", "21a", "21b-f", "34"])
def test_marks_of_either_kind(mark: int | str) -> None:
    assert not amiss(mark)


@pytest.mark.parametrize("mark", ["4", 21, 24, "x"])
def test_marks_that_are_written_as_the_other_kind(mark: int | str) -> None:
    assert amiss(mark)


def test_each_mark_is_written_as_those_of_its_kind() -> None:
    wrong = [(path.name, mark) for path in TESTS.rglob("*.py") for mark in marks(path.read_text()) if amiss(mark)]
    assert not wrong
