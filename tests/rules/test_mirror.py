"""Tests mirror the source: who changes proxy/mux/frames.py finds its tests in tests/mux/test_frames.py."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_TESTS: dict[str, str] = {}
"""Source file: why it needs none of its own. Keep it short."""


def mirror(source: Path) -> Path:
    """proxy/mux/frames.py → tests/mux/test_frames.py; control/cli/main.py → tests/control/cli/test_main.py."""
    folder = source.parent.relative_to("proxy") if source.parts[0] == "proxy" else source.parent
    return Path("tests") / folder / f"test_{source.name}"


def sources() -> list[Path]:
    found = [path.relative_to(ROOT) for package in ("proxy", "control") for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("source", sources(), ids=str)
def test_each_source_file_has_its_tests(source: Path) -> None:
    if str(source) in WITHOUT_TESTS:
        assert not (ROOT / mirror(source)).exists(), "it has tests by now: take it off the list"
    else:
        tests = ROOT / mirror(source)
        assert tests.is_file(), f"{mirror(source)} is missing"
        assert "def test_" in tests.read_text(), f"{mirror(source)} tests nothing"


def test_exceptions_exist_and_have_a_reason() -> None:
    assert [name for name, why in WITHOUT_TESTS.items() if not why or not (ROOT / name).is_file()] == []


def test_init_files_hold_no_code_to_test() -> None:
    """A package's __init__ is its map: words and names, no functions."""
    for path in (path for package in ("proxy", "control") for path in (ROOT / package).rglob("__init__.py")):
        assert "def " not in path.read_text(), path.relative_to(ROOT)


def test_mirror() -> None:
    assert mirror(Path("proxy/mux/frames.py")) == Path("tests/mux/test_frames.py")
    assert mirror(Path("proxy/config/schema.py")) == Path("tests/config/test_schema.py")
    assert mirror(Path("control/cli/main.py")) == Path("tests/control/cli/test_main.py")
