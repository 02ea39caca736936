from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from proxy.cdi import build


def test_it_stands_alone(tmp_path: Path) -> None:
    """As setup.py has it."""
    made = runpy.run_path(build.__file__)
    assert made["compile_hook"](str(tmp_path / "hook")) == ""
    assert (tmp_path / "hook").read_bytes().startswith(b"\x7fELF")


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.compile_hook(str(tmp_path / "hook")) == "there is no C compiler here"
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    assert build.compile_hook(str(tmp_path / "hook")) == f"{compiler} cannot compile it (it says nothing)"
