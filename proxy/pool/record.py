"""Recording the uses of all peers to a file, for ``hostlane pool replay``: noted in the pump's turns, written by a
worker thread.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from time import time

import structlog
import trio

from control.base.system.socketpath import kind
from proxy.errors import StartError
from proxy.pool.recorded import RecordedUse, encode

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between writes: as much as is lost when the proxy is killed."""
MOST_NOTED = 100_000
"""Uses kept between two writes, some 20 MB at most: more than a proxy opens in a second, so that uses are dropped only
while the disk stands still."""


class Recorder:
    """Owns the file from `open` to `close`.

    Args:
        path: appended to; made when it is missing, readable by its owner only, since who calls whom is nobody else's
            business.
        limit: bytes that the file may have; recording ends when it is reached.

    Attributes:
        dropped: uses that were not written.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.dropped = 0
        self._path, self._limit = path, limit
        self._noted: list[RecordedUse] = []
        self._fd, self._size = -1, 0

    def open(self) -> None:
        """Open the file. Raises StartError, also for anything but a regular file."""
        # To open a pipe that nobody reads would block the start, or with O_NONBLOCK fail without saying what it is: so
        # look first.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            with suppress(FileNotFoundError):
                self._check(os.stat(self._path))
            self._fd = os.open(self._path, flags, 0o600)
            found = os.fstat(self._fd)
        except OSError as error:
            raise StartError(f"pool.record: {self._path}: {error.strerror}") from None
        self._check(found)
        self._size = found.st_size

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            self.close()
            what = f"{self._path}: found {kind(found.st_mode)}; allowed: a regular file, or the name of a new one"
            raise StartError(f"pool.record: {what}")

    def note(self, peer: str, duration: float, count: int) -> None:
        """A stream with a peer has ended after `duration` seconds and moved `count` bytes. Takes a microsecond."""
        if len(self._noted) < MOST_NOTED and not self.full:
            self._noted.append(RecordedUse(time=time() - duration, peer=peer, duration=duration, bytes=count))
        else:
            self.dropped += 1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write once in INTERVAL, in a worker thread, until cancelled or the file is full; `close` writes the rest. A
        write that fails ends the recording, with a line in the log, and nothing else.
        """
        task_status.started()
        while not self.full:
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self._write, self._take())
        log.warning("recording ends", file=self._path, bytes=self._size, dropped=self.dropped)

    @property
    def full(self) -> bool:
        """Whether recording has ended: `limit` is reached, or a write has failed."""
        return self._size >= self._limit

    def _take(self) -> list[RecordedUse]:
        noted, self._noted = self._noted, []
        return noted

    def _write(self, noted: list[RecordedUse]) -> None:
        lines: list[bytes] = []
        size = self._size
        for use in noted:
            line = encode(use)
            if size + len(line) > self._limit:
                self._size = self._limit
                self.dropped += 1
                continue
            size += len(line)
            lines.append(line)
        try:
            if lines:
                self._append(b"".join(lines))
            self._size = max(self._size, size)
        except OSError as error:
            log.error("cannot record uses", file=self._path, error=error.strerror)
            self._size = self._limit

    def _append(self, data: bytes) -> None:
        """Append `data` whole or not at all: half a line would make the file unreadable. Raises OSError."""
        end = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            raise

    def close(self) -> None:
        """Write what is noted and close the file. Blocks on the disk. Idempotent."""
        if self._fd >= 0:
            self._write(self._take())
            os.close(self._fd)
            self._fd = -1
