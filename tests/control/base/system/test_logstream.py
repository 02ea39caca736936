from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click
import pytest

from control.base.system.logstream import LogStream
from control.base.system.logwriter import DescriptorOutput, LogWriter
from tests.tools.sockets import PATIENCE


class Never:
    next = float("inf")

    def due(self) -> list[bytes]:
        return []


class Written:
    """A stream in place of another, and what comes out of it."""

    def __init__(self, under: TextIO) -> None:
        self.under = under
        self._writer = LogWriter(DescriptorOutput(under.fileno()), lambda lines: b"lost\n", Never())
        self.stream = LogStream(self._writer, under)

    def text(self) -> str:
        assert self._writer.close(PATIENCE)
        return Path(self.under.name).read_text(self.under.encoding)


@pytest.fixture(params=["utf-8", "ascii"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Written]:
    with open(tmp_path / "err", "w", encoding=request.param) as under:
        yield Written(under)


def test_pieces_become_lines(written: Written) -> None:
    for piece in ("Trace", "back\nLook", "", "up", "Error\n\n", "end"):
        assert written.stream.write(piece) == len(piece)
    written.stream.flush()
    written.stream.flush()
    assert written.text() == "Traceback\nLookupError\n\nend\n"


def test_no_character_is_an_error(written: Written) -> None:
    written.stream.write("\ud800 ä\n")
    assert written.text() == ("\\ud800 ä\n" if written.under.encoding == "utf-8" else "\\ud800 \\xe4\n")


def test_it_says_of_itself_what_the_other_would(written: Written) -> None:
    stream, under = written.stream, written.under
    assert (stream.fileno(), stream.isatty(), stream.encoding) == (under.fileno(), False, under.encoding)
    assert stream.writable()
    assert os.fstat(stream.fileno()).st_ino == os.stat(under.name).st_ino
    assert written.text() == ""


@pytest.mark.parametrize("say", [print, click.echo])
def test_who_writes_to_streams_writes_to_this_one(written: Written, say: Any) -> None:
    say("hello", file=written.stream)
    assert written.text() == "hello\n"
