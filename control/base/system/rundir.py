"""The directory of the sockets that command: only who may command can reach them at all.

It is ``0700``, or ``0710`` with the group whose members may command. Sockets that serve live elsewhere, as whoever has
a directory mounted can connect to every socket in it.
"""

from __future__ import annotations

import os
import stat

from control.base.errors import StartError
from control.base.system.socketpath import SocketPathError, explained
from control.base.system.unixsock import make_directory

__all__ = ["make_run_dir"]

_OWN, _GROUP = 0o700, 0o710


def make_run_dir(path: str, group: int | None) -> None:
    """Make the directory, with its parents, or see that an existing one lets in nobody else; `group`: of those who may
    command. One that is closed to the group is opened to it.

    Raises StartError with one line. An existing directory that is open to others is left as it is: in earlier versions
    containers had it mounted, so that closing it is for somebody to do who knows what they need.
    """
    try:
        make_directory(os.path.dirname(path))
        with explained("creating it"):
            try:
                os.mkdir(path, _OWN)
            except FileExistsError:
                pass
        with explained("opening it"):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _judge(os.fstat(directory), group)
            if group is not None:
                with explained(f"giving it to group {group}"):
                    os.chown(directory, -1, group)
                    os.chmod(directory, _GROUP)
        finally:
            os.close(directory)
    except SocketPathError as obstacle:
        raise StartError(f"run_dir {path}: {obstacle}") from obstacle.__cause__


def _judge(found: os.stat_result, group: int | None) -> None:
    allowed = _OWN if group is None else _GROUP
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (0, os.geteuid()):
        raise SocketPathError(f"it belongs to user {found.st_uid}; allowed: root, or user {os.geteuid()}")
    if mode & ~allowed & 0o777:
        what = "" if group is None else f" and group {group}"
        raise SocketPathError(
            f"it has mode {mode:04o}; allowed: {allowed:04o}{what}, as sockets that command live here and no longer "
            "those that serve (docs/upgrade.md); move what else is mounted from it, then chmod it"
        )
