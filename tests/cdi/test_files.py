from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy.cdi import files, spec
from proxy.cdi.spec import HookCall
from proxy.errors import StartError

PROGRAM = b"#!/bin/sh\nexit 0\n"


def call(folder: Path, **more: bool) -> HookCall:
    return HookCall(f"{folder}/hostlane-hook", "/run/hostlane-cdi/hook.sock", **more)


def test_put_there_and_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "cdi"
    with pytest.raises(FileNotFoundError):
        files.there(str(folder))
    for strict in (False, True):
        files.install(str(folder), call(folder, strict=strict), PROGRAM)
        assert files.there(str(folder)) == call(folder, strict=strict)
    assert stat.S_IMODE((folder / "hostlane-hook").stat().st_mode) == 0o755
    assert {path.name for path in folder.iterdir()} == {"hostlane-hook", "hostlane.json"}
    assert files.remove(str(folder), keep=True) == [f"{folder}/hostlane-hook"]
    assert files.there(str(folder)) is None
    assert files.remove(str(folder), keep=False) == [f"{folder}/hostlane.json"]
    assert list(folder.iterdir()) == []
    assert files.remove(str(folder), keep=False) == []


def test_a_hook_elsewhere(tmp_path: Path) -> None:
    """What was there before is not left behind."""
    elsewhere = tmp_path / "libexec"
    files.install(str(tmp_path), call(tmp_path), PROGRAM)
    files.install(str(tmp_path), call(elsewhere), PROGRAM)
    assert files.there(str(tmp_path)) == call(elsewhere)
    assert not (tmp_path / "hostlane-hook").exists()
    assert len(files.remove(str(tmp_path), keep=False)) == 2


def test_a_hook_that_cannot_run_changes_nothing(tmp_path: Path) -> None:
    files.install(str(tmp_path), call(tmp_path), PROGRAM)
    with pytest.raises(StartError, match=r"hostlane-hook: it cannot be run there .*; allowed: --hook FILE"):
        files.install(str(tmp_path), call(tmp_path, strict=True), b"\x7fELF of another machine")
    assert files.there(str(tmp_path)) == call(tmp_path)
    assert (tmp_path / "hostlane-hook").read_bytes() == PROGRAM
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "hostlane.json").write_text('{"kind": "vendor/gpu"}')
    for work in (
        lambda: files.install(str(tmp_path), call(tmp_path), PROGRAM),
        lambda: files.remove(str(tmp_path), keep=False),
    ):
        with pytest.raises(StartError, match=r"hostlane\.json: found the CDI file of vendor/gpu"):
            work()
    (tmp_path / "hostlane.json").unlink()
    (tmp_path / "hostlane-hook").mkdir()
    with pytest.raises(StartError, match="hostlane-hook: it is a directory"):
        files.install(str(tmp_path), call(tmp_path), PROGRAM)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file/cdi: Not a directory"):
        files.install(str(tmp_path / "file" / "cdi"), call(tmp_path), PROGRAM)
    assert spec.FILE not in {path.name for path in tmp_path.iterdir()}
