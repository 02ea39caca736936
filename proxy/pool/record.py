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
    """Owns the file from `open` to `close`. When it is moved away or emptied (logrotate), recording goes on in the file
    that has its name then.

    Args:
        path: appended to; made when it is missing, readable by its owner only, since who calls whom is nobody else's
            business.
        limit: bytes that the file may have; while it has them, uses are dropped.

    Attributes:
        dropped: uses that were not written.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.dropped = 0
        self._path, self._limit = path, limit
        self._noted: list[RecordedUse] = []
        self._fd, self._size = -1, 0
        self._full = False  # a use did not fit into the file
        self._stopped = ""  # why nothing can be written; said once

    def open(self) -> None:
        """Open the file. Raises StartError, also for anything but a regular file."""
        try:
            self._fd = self._open()
        except OSError as error:
            raise StartError(f"pool.record: {self._path}: {error.strerror}") from None
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        """A descriptor for the file that has the name now. Raises OSError, and StartError if it is no regular file."""
        # To open a pipe that nobody reads would block the start, or with O_NONBLOCK fail without saying what it is: so
        # look first.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        with suppress(FileNotFoundError):
            self._check(os.stat(self._path))
        fd = os.open(self._path, flags, 0o600)
        try:
            self._check(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            what = f"{self._path}: found {kind(found.st_mode)}; allowed: a regular file, or the name of a new one"
            raise StartError(f"pool.record: {what}")

    def note(self, peer: str, duration: float, count: int) -> None:
        """A stream with a peer has ended after `duration` seconds and moved `count` bytes. Takes a microsecond."""
        if len(self._noted) < MOST_NOTED:
            self._noted.append(RecordedUse(time=time() - duration, peer=peer, duration=duration, bytes=count))
        else:
            self.dropped += 1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write once in INTERVAL, in a worker thread, until cancelled; `close` writes the rest. While that fails, or
        the file is full, uses are dropped, with one line in the log, and nothing else happens.
        """
        task_status.started()
        while True:
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self._write, self._take())

    @property
    def full(self) -> bool:
        """Whether uses are dropped because the file has all its bytes; they may be noted all the same."""
        return self._full

    @property
    def stopped(self) -> str:
        """Why nothing can be written for now; "" as long as it can."""
        return self._stopped

    def _take(self) -> list[RecordedUse]:
        noted, self._noted = self._noted, []
        return noted

    def _write(self, noted: list[RecordedUse]) -> None:
        lines = [encode(use) for use in noted]
        written = 0
        try:
            if self._follow():
                self._full = False
            elif not lines:
                return
            room = 0 if self._full else self._limit - self._size
            while written < len(lines) and (room := room - len(lines[written])) >= 0:
                written += 1
            if written:
                self._append(b"".join(lines[:written]))
            self._full |= written < len(lines)
            self._say(f"it has all bytes that pool.record_limit allows, {self._limit}" if self._full else "")
        except StartError as error:
            written = 0
            self._say(str(error))
        except OSError as error:
            written = 0
            self._say(error.strerror or str(error))
        self.dropped += len(noted) - written

    def _follow(self) -> bool:
        """Make the file that has the name now the one to write to. Returns whether it is another one, or has been cut
        short, since the last write. Raises as `_open`, and the other one stays.
        """
        held = os.fstat(self._fd)
        try:
            moved = not os.path.samestat(os.stat(self._path), held)
        except FileNotFoundError:
            moved = True
        if moved:
            fd = self._open()
            os.close(self._fd)
            self._fd, held = fd, os.fstat(fd)
        before, self._size = self._size, held.st_size
        return moved or self._size < before

    def _append(self, data: bytes) -> None:
        """Append `data` whole or not at all: half a line would make the file unreadable. Raises OSError."""
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _say(self, stopped: str) -> None:
        if stopped and not self._stopped:
            log.warning("uses are not recorded", file=self._path, error=stopped, dropped=self.dropped)
        elif self._stopped and not stopped:
            log.info("uses are recorded again", file=self._path, dropped=self.dropped)
        self._stopped = stopped

    def close(self) -> None:
        """Write what is noted and close the file. Blocks on the disk. Idempotent."""
        if self._fd >= 0:
            self._write(self._take())
            os.close(self._fd)
            self._fd = -1
