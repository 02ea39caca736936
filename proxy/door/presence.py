"""Whether somebody attaches interfaces to containers: a lock that the attach service holds, and the door looks at."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from proxy.door.labels import ATTACH
from proxy.errors import StartError

__all__ = ["Presence", "hold", "is_held"]

FILE = "attach.lock"
"""In `door.directory`."""
PATIENCE = 5.0
"""Seconds until it is said that nobody does: at a machine's start both come at once."""
_FLOCK = "hhqqi4x"
"""struct flock, fcntl(2): type, whence, start, length, process. Unlike with flock(2), looking takes nothing."""


@contextmanager
def hold(directory: str) -> Iterator[None]:
    """Be the one who attaches. Raises StartError."""
    path = f"{directory}/{FILE}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"door.directory {path}: {error.strerror}") from None
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        yield
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StartError(f"{path}: another attach service runs on this host") from None
    finally:
        os.close(file)


def is_held(directory: str) -> bool:
    """Whether somebody does."""
    try:
        file = os.open(f"{directory}/{FILE}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
    finally:
        os.close(file)
    return kind != fcntl.F_UNLCK


class Presence:
    """What the door knows of it.

    Attributes:
        missing: nobody has attached for a while.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._since: float | None = None
        self.missing = False

    def look(self) -> bool:
        """Look again. Whether `missing` is another one now."""
        before, now = self.missing, trio.current_time()
        if is_held(self._directory):
            self._since = None
        elif self._since is None:
            self._since = now
        self.missing = self._since is not None and now - self._since >= PATIENCE
        return self.missing is not before

    def problems(self, containers: Iterable[str]) -> list[str]:
        """A line for each of these, which are to get an interface."""
        why = "nobody attaches on this host; run hostlane attach-service"
        return [f"container {name}: {ATTACH}: {why}" for name in containers] if self.missing else []
