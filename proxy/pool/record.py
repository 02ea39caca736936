"""Recording the uses of all peers to a file, for ``hostlane pool replay``: noted in the pump's turns, written by a
worker thread.
"""

from __future__ import annotations

from time import time

import structlog
import trio

from control.base.system.appendedfile import AppendedFile
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
        self._file, self._limit = AppendedFile("pool.record", path, 0o600), limit
        self._noted: list[RecordedUse] = []
        self._full = False  # a use did not fit into the file
        self._stopped = ""  # why nothing can be written; said once

    def open(self) -> None:
        """Open the file. Raises StartError, also for anything but a regular file."""
        self._file.open()

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
            if self._file.follow():
                self._full = False
            elif not lines:
                return
            room = 0 if self._full else self._limit - self._file.size
            while written < len(lines) and (room := room - len(lines[written])) >= 0:
                written += 1
            if written:
                self._file.append(b"".join(lines[:written]))
            self._full |= written < len(lines)
            self._say(f"it has all bytes that pool.record_limit allows, {self._limit}" if self._full else "")
        except StartError as error:
            written = 0
            self._say(str(error))
        except OSError as error:
            written = 0
            self._say(error.strerror or str(error))
        self.dropped += len(noted) - written

    def _say(self, stopped: str) -> None:
        if stopped and not self._stopped:
            log.warning("uses are not recorded", file=self._file.path, error=stopped, dropped=self.dropped)
        elif self._stopped and not stopped:
            log.info("uses are recorded again", file=self._file.path, dropped=self.dropped)
        self._stopped = stopped

    def close(self) -> None:
        """Write what is noted and close the file. Blocks on the disk. Idempotent."""
        if self._file.is_open:
            self._write(self._take())
            self._file.close()
