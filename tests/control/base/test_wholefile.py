from __future__ import annotations

import os
from pathlib import Path

import pytest

from control.base.wholefile import read_file, sync_directory, write_file


def test_a_file_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_file(str(path), b"one", 0o600)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    write_file(str(path), b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["key"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(str(tmp_path / "open"), b"", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644


def test_nothing_is_overwritten_unless_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_file(str(path), b"new", 0o600, replace=False)
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["key"]


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_file(str(path), b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key"]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_file(str(tmp_path / "missing" / "key"), b"", 0o600)
    with pytest.raises(OSError):
        sync_directory(str(tmp_path / "missing"))


def test_what_is_read_is_bounded_and_said(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_file(str(path), 1 << 20, "text")) == 1 << 20
    for place, said in (
        ("/dev/zero", "found more than 1 MiB; allowed: text"),
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path), "is a directory"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            read_file(place, 1 << 20, "text")
