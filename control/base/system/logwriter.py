"""Lines on their way to stderr or a file, in a thread of their own: whoever logs never waits.

stderr may be a pipe that nobody reads, a terminal stopped with Ctrl-S, a journal that hangs, a full disk. A write then
lasts as long as it likes, or fails; and a proxy that waits for it carries no byte. So lines are queued, within a bound
in bytes, and a thread writes them. A line that finds no room, or cannot be written, is lost and counted, and the count
is a line of its own where the lost ones would stand, as soon as lines can be written again.

(Making stderr non-blocking would spare the thread, but the mode belongs to the open file, which other processes share.)
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from select import PIPE_BUF
from time import monotonic
from typing import Protocol

ROOM = 256 * 1024
"""Bytes that wait to be written: over a thousand lines, more than come in a second."""
RESERVE = 64 * 1024
"""Bytes beside ROOM for what is urgent, so that a crash still finds room for its last words."""
LINE_COST = 128
"""Bytes that a queued line takes beside its text, about; without them, empty lines would wait without a bound."""


class Summaries(Protocol):
    """Lines that come by the clock. Any thread may ask.

    Attributes:
        next: when there will be lines (monotonic seconds); infinity: not as things are.
    """

    @property
    def next(self) -> float: ...

    def due(self) -> list[bytes]:
        """The lines that are due."""
        ...


class NoSummaries:
    """`Summaries` of which there are never any."""

    next = inf

    def due(self) -> list[bytes]:
        """None."""
        return []


class Output(Protocol):
    """Where lines are written to. It is used by the writer's thread only, and stays the caller's.

    Attributes:
        piece: bytes that are written at once, at most, unless one line is longer.
    """

    piece: int

    def write(self, data: bytes) -> int:
        """Write whole lines, for as long as that takes. Returns how many bytes at their end were not written."""
        ...

    def look(self) -> None:
        """Look whether the file has been moved away, though there is nothing to write."""
        ...


class DescriptorOutput:
    """An open descriptor, which may block or not. Of each piece, a pipe takes all or nothing at a time, so that lines
    of other processes which share stderr do not get between the halves of ours."""

    piece = PIPE_BUF

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def write(self, data: bytes) -> int:
        """Write lines (Output)."""
        # A disk that was full in the middle of a line has half of it.
        data = b"\n" + data if self._torn else data
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # somebody who shares it has made it non-blocking
                    waiting = select.poll()
                    waiting.register(self._descriptor, select.POLLOUT)
                    waiting.poll()
        except OSError:
            written = len(data) - len(left)
            if written:
                self._torn = data[written - 1] != ord("\n")
            return len(left)
        self._torn = False
        return 0

    def look(self) -> None:
        """Nothing: a descriptor stays what it is (Output)."""


class LogWriter:
    """Writes whole lines. Its thread runs from the start until `close`.

    Args:
        output: None: there is no log, every line is lost.
        lost: makes the line that says how many lines were lost. Called in the thread.
        room: bytes that wait to be written.

    Attributes:
        lost: lines that were lost and are not told of yet; lost_ever: all that were lost.
    """

    def __init__(
        self,
        output: Output | None,
        lost: Callable[[int], bytes],
        summaries: Summaries,
        room: int = ROOM,
        name: str = "log",
    ) -> None:
        self._output, self._lost_line, self._summaries = output, lost, summaries
        self._room = room
        self.lost = self.lost_ever = 0
        self._look = False
        # Each line with the number of lines that are lost if it is: one that tells of lost lines stands for those.
        self._queue: deque[tuple[bytes, int]] = deque()
        self._held = 0
        self._full = False
        self._closing = False
        # Reentrant: the collector may run anywhere, and what it finds may have something to say.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, line: bytes, urgent: bool = False) -> None:
        """Queue a line, newline and all, or count it as lost. Never blocks, never raises. Any thread may call it.

        Once there was no room, nothing is queued until half of it is free, so that a slow reader gets a piece without
        gaps and then one number, instead of a number after each line. What is urgent is queued all the same.
        """
        with self._changed:
            room = self._room + RESERVE if urgent else 0 if self._full else self._room
            if self._closing or self._output is None or self._held + len(line) + LINE_COST > room:
                self._full = self._held > self._room // 2
                self.lost += 1
                self.lost_ever += 1
            else:
                self._enqueue(line, 1)

    def wake(self) -> None:
        """`Summaries.next` has become another time."""
        with self._changed:
            self._changed.notify()

    def look(self) -> None:
        """Have the output look whether its file was moved away. Any thread may ask."""
        with self._changed:
            self._look = True
            self._changed.notify()

    def close(self, patience: float) -> bool:
        """Write what is queued, for at most `patience` seconds, and end the thread. Lines are lost from now on.

        Returns whether the thread has ended. If not, a write still lasts; the end of the process ends it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _enqueue(self, line: bytes, stands_for: int) -> None:
        self._queue.append((line, stands_for))
        self._held += len(line) + LINE_COST
        self._changed.notify()

    def _run(self) -> None:
        # Signals are the main thread's, whose system calls they are meant to interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                while self._idle and (left := self._summaries.next - monotonic()) > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                if self._closing and not self._queue:
                    return
                lines = self._take()
                look, self._look = self._look, False
            if look and self._output is not None:
                self._output.look()
            if lines:
                self._settle(lines, self._write(lines))
            for line in self._summaries.due():
                self.put(line)

    @property
    def _idle(self) -> bool:
        return not (self._queue or self._closing or self._look)

    def _take(self) -> list[tuple[bytes, int]]:
        """The next lines: as many as the output takes in one piece."""
        lines: list[tuple[bytes, int]] = []
        size, most = 0, 0 if self._output is None else self._output.piece
        while self._queue and (not lines or size + len(self._queue[0][0]) <= most):
            lines.append(self._queue.popleft())
            size += len(lines[-1][0])
        return lines

    def _write(self, lines: list[tuple[bytes, int]]) -> int:
        """Write lines; returns the number of those that were lost."""
        assert self._output is not None, "nothing is queued without one"
        unwritten = self._output.write(b"".join(line for line, _ in lines))
        return _beyond(lines, unwritten) if unwritten else 0

    def _settle(self, lines: list[tuple[bytes, int]], lost: int) -> None:
        with self._changed:
            self._held -= sum(len(line) + LINE_COST for line, _ in lines)
            self._full = self._full and self._held > self._room // 2
            self.lost += lost
            self.lost_ever += lost
            if self.lost and not lost and not self._full:
                told, self.lost = self.lost, 0
                self._enqueue(self._lost_line(told), told)


def _beyond(lines: list[tuple[bytes, int]], unwritten: int) -> int:
    """How many lines are lost when the last so many bytes of them were not written."""
    lost = 0
    for line, stands_for in reversed(lines):
        if unwritten <= 0:
            break
        lost += stands_for
        unwritten -= len(line)
    return lost
