"""Files of our own in a directory that others use too: a lock that is a file, and removing what is still ours.

All names are relative to an open directory, so a path that is swapped underneath leads nowhere else.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

__all__ = ["RemovalRight", "is_same", "release_lock", "remove", "take_lock"]

_LOCK_MODE = 0o600
# Reading is enough to flock a file, so nobody else may: whoever holds the lock keeps the proxy from starting.


def take_lock(directory: int, name: str) -> int | None:
    """Take the lock file ``name``, creating it if need be; the descriptor holds it until `release_lock` or death.

    Returns None, at once, if somebody else holds it. Raises OSError if the file cannot be opened or locked.

    Only a holder removes the file. One that was opened here and removed by its holder before it was locked here
    guards nothing, because the next process creates another: so the locked file must still be the one with the name.
    """
    while True:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _LOCK_MODE, dir_fd=directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same(directory, name, os.fstat(lock)):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def release_lock(directory: int, name: str, lock: int) -> None:
    """Remove the lock file, then let go of it: the other way round, somebody else's could be removed. Never raises."""
    remove(directory, name, os.fstat(lock))
    os.close(lock)


class RemovalRight:
    """Whether files are ours to remove. Two processes can hold the same listening socket while one hands it to the
    other; only one of them may take the file away.
    """

    __slots__ = ("ours",)

    def __init__(self, ours: bool = True) -> None:
        self.ours = ours

    def release_lock(self, directory: int, name: str, lock: int) -> None:
        """As `release_lock`, if it is ours; otherwise only this descriptor is closed, and the lock stays held."""
        if self.ours:
            release_lock(directory, name, lock)
        else:
            os.close(lock)

    def remove(self, directory: int, name: str, ours: os.stat_result) -> None:
        """As `remove`, if it is ours."""
        if self.ours:
            remove(directory, name, ours)


def remove(directory: int, name: str, ours: os.stat_result) -> None:
    """Remove ``name`` if it is the file that ``ours`` describes. Never raises: what stays behind must do no harm.

    The caller keeps that file in use, open or bound: a removed file's inode number may be given to a new one.
    """
    with suppress(OSError):
        if is_same(directory, name, ours):
            os.unlink(name, dir_fd=directory)


def is_same(directory: int, name: str, status: os.stat_result) -> bool:
    """Whether ``name`` is the file that ``status`` describes."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), status)
    except FileNotFoundError:
        return False
