"""A file that lines are appended to, and that others move away, empty or fill the disk of meanwhile (logrotate)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from control.base.errors import StartError
from control.base.system.socketpath import kind


class AppendedFile:
    """Owns the file from `open` to `close`. Everything here blocks on the disk; one thread at a time may call it.

    Args:
        key: of the configuration, for errors.
        path: made when it is missing.
        mode: of a file that is made.

    Attributes:
        size: bytes that it has, as far as it is known.
    """

    def __init__(self, key: str, path: str, mode: int) -> None:
        self.path, self.size = path, 0
        self._key, self._mode, self._fd = key, mode, -1

    def open(self) -> None:
        """Open the file. Raises StartError, also for anything but a regular file."""
        try:
            self._fd = self._open()
        except OSError as error:
            raise StartError(f"{self._key}: {self.path}: {error.strerror}") from None
        self.size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        """A descriptor for the file that has the name now. Raises OSError, and StartError if it is no regular file."""
        # To open a pipe that nobody reads would block the start, or with O_NONBLOCK fail without saying what it is: so
        # look first.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        with suppress(FileNotFoundError):
            self._check(os.stat(self.path))
        fd = os.open(self.path, flags, self._mode)
        try:
            self._check(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            what = f"{self.path}: found {kind(found.st_mode)}; allowed: a regular file, or the name of a new one"
            raise StartError(f"{self._key}: {what}")

    def follow(self) -> bool:
        """Make the file that has the name now the one to append to. Returns whether it is another one, or has been cut
        short, since the last time. Raises OSError, and StartError if it is no regular file; the other one stays then.
        """
        held = os.fstat(self._fd)
        try:
            moved = not os.path.samestat(os.stat(self.path), held)
        except FileNotFoundError:
            moved = True
        if moved:
            fd = self._open()
            os.close(self._fd)
            self._fd, held = fd, os.fstat(fd)
        before, self.size = self.size, held.st_size
        return moved or self.size < before

    def append(self, data: bytes) -> None:
        """Append `data` whole or not at all: half a line would make the file unreadable. Raises OSError."""
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_open(self) -> bool:
        """Whether it is."""
        return self._fd >= 0


class FileOutput:
    """Where a `LogWriter` writes to: an open `AppendedFile`, whichever file has its name when lines come. A piece that
    cannot be appended whole is lost.

    Args:
        say: called in the writer's thread when pieces begin to be lost, with why, and with "" when they no longer are.
    """

    piece = 65536

    def __init__(self, file: AppendedFile, say: Callable[[str], None]) -> None:
        self._file, self._say = file, say
        self._stopped = ""

    def write(self, data: bytes) -> int:
        """Append lines (``logwriter.Output``)."""
        if why := self._try(data):
            self._tell(why)
            return len(data)
        self._tell("")
        return 0

    def look(self) -> None:
        """Go over to the file that has the name now (``logwriter.Output``)."""
        if why := self._try(b""):
            self._tell(why)

    def _try(self, data: bytes) -> str:
        try:
            self._file.follow()
            self._file.append(data)
        except StartError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _tell(self, stopped: str) -> None:
        if bool(stopped) is not bool(self._stopped):
            self._say(stopped)
        self._stopped = stopped
