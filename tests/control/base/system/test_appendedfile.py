"""How a file is opened, refused and followed is also in tests/pool/test_record.py, for one that uses it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.base.errors import StartError
from control.base.system.appendedfile import AppendedFile, FileOutput
from tests.tools.sockets import fds_since, open_fds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


@pytest.fixture
def file(path: Path) -> Iterator[AppendedFile]:
    before = open_fds()
    file = AppendedFile("some.key", str(path), 0o640)
    file.open()
    yield file
    file.close()
    file.close()
    assert not file.is_open
    assert not fds_since(before)


def test_it_is_made_and_appended_to(path: Path, file: AppendedFile) -> None:
    file.append(b"one\n")
    again = AppendedFile("some.key", str(path), 0o600)
    again.open()
    assert again.size == 4
    again.append(b"two\n")
    again.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"some\.key: .*/missing/lines: No such file or directory"):
        AppendedFile("some.key", str(tmp_path / "missing" / "lines"), 0o600).open()


def test_it_follows_a_name(path: Path, file: AppendedFile) -> None:
    assert not file.follow()
    path.rename(f"{path}.1")
    assert file.follow()
    file.append(b"new\n")
    assert (path.read_bytes(), Path(f"{path}.1").read_bytes()) == (b"new\n", b"")
    os.truncate(path, 0)
    assert file.follow()
    assert file.size == 0


def test_what_does_not_fit_leaves_no_piece(path: Path, file: AppendedFile) -> None:
    file.append(b"one\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(b"two\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"one\n"


def test_an_output_says_once_that_it_cannot_write_and_that_it_can_again(path: Path, file: AppendedFile) -> None:
    said: list[str] = []
    output = FileOutput(file, said.append)
    assert output.write(b"one\n") == 0
    path.rename(f"{path}.1")
    path.mkdir()
    for _ in range(3):
        assert output.write(b"two\n") == 4, "all of it is lost"
    output.look()
    path.rmdir()
    assert said == [f"some.key: {path}: found a directory; allowed: a regular file, or the name of a new one"]
    assert output.write(b"three\n") == 0
    assert said[1:] == [""]
    assert (path.read_bytes(), Path(f"{path}.1").read_bytes()) == (b"three\n", b"one\n")


def test_an_output_that_only_looks(path: Path, file: AppendedFile) -> None:
    output = FileOutput(file, pytest.fail)
    path.unlink()
    output.look()
    assert path.read_bytes() == b""
