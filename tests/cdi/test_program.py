from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.cdi import build, program
from proxy.errors import StartError


def test_it_is_compiled_where_it_was_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILED", str(tmp_path / "none"))
    found = program.obtain()
    assert found.startswith(b"\x7fELF")
    place = tmp_path / "hook"
    place.write_bytes(found)
    place.chmod(0o755)
    assert program.tried(str(place)) == ""


def test_it_is_taken_as_it_was_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped").write_bytes(b"the program")
    monkeypatch.setattr(build, "COMPILED", str(tmp_path / "shipped"))
    assert program.obtain() == b"the program"
    monkeypatch.setattr(build, "COMPILED", str(tmp_path))
    with pytest.raises(StartError, match="Is a directory"):
        program.obtain()


def test_neither_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILED", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"made without the hook, and there is no C compiler here; install a C compil"):
        program.obtain()
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\necho 'ld: cannot find -lc' >&2; echo more >&2; exit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(StartError, match=r"and .*/gcc cannot compile it \(ld: cannot find -lc\); install"):
        program.obtain()


def test_a_place_where_it_cannot_run(tmp_path: Path) -> None:
    place = tmp_path / "hook"
    place.write_bytes(b"\x7fELF of another machine")
    assert "noexec" in program.tried(str(place))
    place.chmod(0o755)
    assert program.tried(str(place)) == f"it cannot be run there ({os.strerror(8)})"
    place.write_text("#!/bin/sh\nexit 3\n")
    assert program.tried(str(place)) == "it cannot be run there (it ended with 3)"
