from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from proxy.check.readers import files
from proxy.check.report import Unchecked


def test_text_and_numbers(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b" 17\n")
    assert files.text(str(file)) == "17"
    assert files.number(str(file), "x") == 17
    file.write_bytes(b"\xff seventeen")
    assert files.text(str(file)) == "\ufffd seventeen"
    assert files.number(str(file), "x") == Unchecked("x", f"{file} holds no number")


def test_why_there_is_none(tmp_path: Path) -> None:
    missing = str(tmp_path / "x")
    assert files.text(missing) == Unchecked(missing, files.ABSENT)
    assert files.number(missing, "the number") == Unchecked("the number", files.ABSENT)
    assert files.text(str(tmp_path)) == Unchecked(str(tmp_path), "is a directory")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.EACCES, "no permission; ask as root"),
        (errno.EPERM, "no permission; ask as root"),
        (errno.EIO, "input/output error"),
    ],
)
def test_reasons(code: int, why: str) -> None:
    assert files.unseen("it", OSError(code, os.strerror(code))) == Unchecked("it", why)


def test_a_sysctl() -> None:
    found = files.sysctl("net.core.somaxconn")
    assert isinstance(found, int)
    assert found > 0
    assert files.sysctl("net.core.nothing") == Unchecked("net.core.nothing", files.ABSENT)
