"""The writer against real pipes, files, sockets and terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from select import PIPE_BUF
from time import monotonic

import pytest

from control.base.system.logwriter import LINE_COST, RESERVE, ROOM, DescriptorOutput, LogWriter
from tests.tools.sockets import PATIENCE, eventually

pytestmark = pytest.mark.failure("27")
LINE = b"x" * 199 + b"\n"
FIT = ROOM // (len(LINE) + LINE_COST)
"""Lines that the queue takes."""


class Clock:
    """Summaries that are due when the test says so."""

    def __init__(self) -> None:
        self.next = float("inf")
        self.lines: list[bytes] = []

    def due(self) -> list[bytes]:
        lines, self.lines, self.next = self.lines, [], float("inf")
        return lines


def told(lines: int) -> bytes:
    return b"lost %d\n" % lines


class Pipe:
    """A pipe, whose ends are closed once."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, or all until the end."""
        found = b""
        while size is None or len(found) < size:
            assert select.select([self.reading], [], [], PATIENCE)[0], f"{len(found)} bytes came"
            if not (piece := os.read(self.reading, 65536 if size is None else size - len(found))):
                break
            found += piece
        return found

    def fill(self) -> bytes:
        """Until there is no room for a byte; returns what is in it."""
        os.set_blocking(self.writing, False)
        filling = b""
        try:
            while True:
                filling += b"f" * os.write(self.writing, b"f" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writing, True)
            return filling

    def close(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close(pipe.writing)


@pytest.fixture
def made(pipe: Pipe) -> Iterator[Callable[..., LogWriter]]:
    """Makes writers. A thread must not live on with a descriptor that soon is another file's."""
    with ExitStack() as stack:

        def make(descriptor: int | None, clock: Clock | None = None) -> LogWriter:
            output = None if descriptor is None else DescriptorOutput(descriptor)
            writer = LogWriter(output, told, clock or Clock())
            stack.callback(lambda: writer.close(PATIENCE) or pytest.fail("it still writes"))
            return writer

        yield make
        pipe.close(pipe.reading)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%-199d\n" % number for number in range(start, start + count)]


def test_lines_come_whole_and_in_order(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    writer = made(pipe.writing)
    lines = [b"%d " % number + b"y" * (number % 300) + b"\n" for number in range(500)]
    for line in lines:
        writer.put(line)
    assert pipe.read(sum(map(len, lines))) == b"".join(lines)
    assert writer.lost == 0


def test_nobody_waits_for_a_pipe_that_is_not_read_and_the_lost_lines_are_told(
    pipe: Pipe, made: Callable[..., LogWriter]
) -> None:
    filling, lines = pipe.fill(), numbered(20_000)
    writer = made(pipe.writing)
    for line in lines:
        writer.put(line)
    assert writer.lost == 20_000 - FIT
    expected = filling + b"".join(lines[:FIT]) + told(20_000 - FIT)
    assert pipe.read(len(expected)) == expected, "what was queued, then the count where the others would stand"
    eventually(lambda: writer.lost == 0, "told")
    writer.put(b"after\n")
    assert pipe.read(6) == b"after\n"


def test_a_slow_reader_gets_pieces_without_gaps(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    writer = made(pipe.writing)
    found, number, counts = b"", 0, 0
    while counts < 3:
        for line in numbered(200, number):
            writer.put(line)
        number += 200
        found += pipe.read(4096)
        counts = len(re.findall(rb"lost \d+\n", found))
    seen, gaps = 0, 0
    for line in found[: found.rindex(b"\n")].split(b"\n"):
        if line.startswith(b"lost "):
            seen, gaps = seen + int(line[5:]), gaps + 1
        else:
            assert int(line) == seen, "each line is there or counted, in its place"
            seen += 1
    assert gaps == 3
    # Every count is worth half a queue.
    assert len(found) > 2 * ROOM // 2 * len(LINE) // (len(LINE) + LINE_COST)


def test_the_queue_is_bounded_in_bytes(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    pipe.fill()
    writer = made(pipe.writing)
    for _ in range(10_000):
        writer.put(b"\n")
    assert writer.lost == 10_000 - ROOM // (1 + LINE_COST)


def test_a_line_longer_than_the_queue_stops_nothing(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    writer = made(pipe.writing)
    writer.put(b"z" * ROOM)
    writer.put(b"next\n")
    assert pipe.read(5 + len(told(1))) == b"next\n" + told(1)


def test_last_words_find_room(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    filling = pipe.fill()
    writer = made(pipe.writing)
    for _ in range(10_000):
        writer.put(LINE)
    words = b"w" * (RESERVE // 2) + b"\n"
    writer.put(words, urgent=True)
    writer.put(b"w" * RESERVE + b"\n", urgent=True)
    assert writer.lost == 10_000 - FIT + 1, "there is a bound for them too"
    assert pipe.read(len(filling)) == filling
    assert pipe.read(FIT * len(LINE) + len(words)) == FIT * LINE + words
    last = told(10_000 - FIT + 1)
    assert pipe.read(len(last)) == last


def test_the_end_waits_for_a_reader_that_reads_and_not_for_one_that_does_not(
    pipe: Pipe, made: Callable[..., LogWriter]
) -> None:
    filling, lines = pipe.fill(), b"".join(numbered(500))
    writer = made(pipe.writing)
    for line in numbered(500):
        writer.put(line)
    began = monotonic()
    assert not writer.close(0.1)
    assert monotonic() - began >= 0.1
    writer.put(b"too late\n")
    assert pipe.read(len(filling + lines)) == filling + lines
    assert writer.close(PATIENCE)


def test_a_closed_pipe_costs_lines_only(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    pipe.close(pipe.reading)
    writer = made(pipe.writing)
    for _ in range(1000):
        writer.put(LINE)
    eventually(lambda: writer.lost == 1000, "lost and counted")
    assert writer.close(PATIENCE)


def test_a_pipe_that_gets_a_reader_again_goes_on(tmp_path: Path, made: Callable[..., LogWriter]) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    writer = made(writing)
    os.close(first)
    for _ in range(7):
        writer.put(LINE)
    eventually(lambda: writer.lost == 7, "nobody reads")
    second = os.open(path, os.O_RDONLY)
    writer.put(b"back\n")
    with open(second, "rb", buffering=0) as stream:
        assert stream.read(5) == b"back\n"
        assert stream.read(len(told(7))) == told(7)
    assert writer.close(PATIENCE)
    os.close(writing)


@pytest.mark.netns
def test_a_full_disk(tmp_path: Path, made: Callable[..., LogWriter]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with open(tmp_path / "log", "ab", buffering=0) as log:
            writer = made(log.fileno())
            lines = [b"%-249d\n" % number for number in range(500)]
            for line in lines:
                writer.put(line)
            eventually(lambda: writer.lost > 0, "it is full")
            lost = 500 - 65536 // 250
            eventually(lambda: writer.lost == lost, f"{lost} lines are lost")
            whole = (tmp_path / "log").read_bytes()
            assert len(whole) == 65536, "the last line is a half"
            os.truncate(tmp_path / "log", 0)
            writer.put(b"room again\n")
            writer.put(b"and more\n")
            assert writer.close(PATIENCE)
        assert (tmp_path / "log").read_bytes().split(b"\n", 1)[1].splitlines() in (
            [b"room again", told(lost).strip(), b"and more"],
            [b"room again", b"and more", told(lost).strip()],
        )
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_pipe_that_others_have_made_non_blocking(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    os.set_blocking(pipe.writing, False)
    writer = made(pipe.writing)
    lines = numbered(FIT)
    for line in lines:
        writer.put(line)
    assert pipe.read(FIT * 200) == b"".join(lines), "it waits for room as it does with other pipes"
    assert not os.get_blocking(pipe.writing), "and leaves the others their mode"


def test_a_journal_that_hangs(made: Callable[..., LogWriter]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        writer = made(ours.fileno())
        for line in numbered(20_000):
            writer.put(line)
        theirs.settimeout(PATIENCE)
        found = b""
        while b"lost " not in found:
            found += theirs.recv(65536)
        theirs.close()
        writer.put(LINE)
        eventually(lambda: writer.lost > 0, "and one that is gone")
        assert writer.close(PATIENCE)


def test_a_stopped_terminal(made: Callable[..., LogWriter]) -> None:
    master, slave = pty.openpty()
    try:
        termios.tcflow(slave, termios.TCOOFF)  # Ctrl-S
        writer = made(slave)
        for line in numbered(20_000):
            writer.put(line)
        assert writer.lost
        termios.tcflow(slave, termios.TCOON)
        found = b""
        while b"lost " not in found:
            found += os.read(master, 65536)
        assert found.startswith(b"0 ")
        ours = threading.Thread(target=_drain, args=[master], daemon=True)
        ours.start()
        assert writer.close(PATIENCE)
    finally:
        os.close(master)
        os.close(slave)


def _drain(descriptor: int) -> None:
    with suppress(OSError):
        while os.read(descriptor, 65536):
            pass


def test_summaries_come_by_the_clock(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    clock = Clock()
    writer = made(pipe.writing, clock)
    clock.lines, clock.next = [b"27 more\n"], monotonic() + 0.05
    writer.wake()
    assert pipe.read(8) == b"27 more\n"


def test_lines_are_not_cut_by_those_of_others_on_the_same_pipe(pipe: Pipe, made: Callable[..., LogWriter]) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, PIPE_BUF)
    writers = [made(pipe.writing) for _ in range(3)]
    for number in range(300):
        for mark, writer in zip(b"abc", writers, strict=True):
            writer.put(bytes([mark]) * (50 + number) + b"\n")
    total = sum(3 * (51 + number) for number in range(300))
    lines = pipe.read(total).splitlines()
    assert len(lines) == 900
    assert all(len(set(line)) == 1 for line in lines)


def test_without_a_descriptor(made: Callable[..., LogWriter]) -> None:
    writer = made(None)
    writer.put(LINE)
    assert (writer.lost, writer.close(PATIENCE)) == (1, True)
