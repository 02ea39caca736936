"""The path of a Unix socket: what is there already, who listens there, and in words why it cannot be used."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from control.base.reading.addresses import UNIX_PATH_BYTES
from control.base.system.ownfiles import RemovalRight
from control.base.system.peercred import credentials_of

__all__ = ["SocketPath", "SocketPathError", "explained", "published", "split"]

_PLAIN_NAME_BYTES = 64
# Longest `.NAME.new` used as it is: behind /proc/self/fd/NUMBER/ it still fits into UNIX_PATH_BYTES.

_ADVICE = {
    errno.EACCES: "run the proxy as a user who may (now it is uid {uid}) or choose another directory",
    errno.EPERM: "run the proxy as a user who may (now it is uid {uid}), on a file system that holds sockets",
    errno.EROFS: "mount it writable or choose another directory",
    errno.ENOSPC: "make room (df, df -i) or choose another directory",
    errno.EDQUOT: "raise the quota of uid {uid} or choose another directory",
    errno.EOPNOTSUPP: "choose a directory on a file system that holds sockets, such as /run",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (sysctl fs.file-max)",
}

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def kind(mode: int) -> str:
    """What a file is, in words, from its `os.stat_result.st_mode`."""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


class SocketPathError(Exception):
    """What is in the way and what to do about it, without the path that was asked for: `bind_unix` puts it in front."""


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an OSError into an `SocketPathError`: what was being done, what the system said, what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "").format(uid=os.geteuid())
        raise SocketPathError("; ".join(filter(None, [f"{doing}: {error.strerror or error}", advice]))) from error


def split(path: str) -> tuple[str, str]:
    """Directory and name of an absolute path on which a Unix socket can be bound. Raises SocketPathError."""
    if path.startswith(("@", "\0")):
        raise SocketPathError("an abstract socket has no owner and no mode; write an absolute path")
    directory, name = os.path.split(path)
    if not os.path.isabs(path) or "\0" in path or name in ("", ".", ".."):
        raise SocketPathError("this is not the absolute path of a file")
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES:
        raise SocketPathError(
            f"the path has {length} bytes, a Unix socket's at most {UNIX_PATH_BYTES}; choose a shorter one"
        )
    return directory, name


@dataclass(frozen=True)
class SocketPath:
    """A socket's path: its name in an open directory (``fd``, which the caller closes), and the names of its lock file
    and of its temporary file beside it.
    """

    directory: str
    name: str
    fd: int
    deed: RemovalRight = field(default_factory=RemovalRight)
    """Whether what is made there is ours to remove."""

    @property
    def lock(self) -> str:
        """Name of the lock file, which is locked while the socket exists."""
        return f".{self.name}.lock"

    @property
    def temporary(self) -> str:
        """Name to which the socket is bound first; always the same, so that one left by a crash is found."""
        plain = f".{self.name}.new"
        if len(os.fsencode(plain)) <= _PLAIN_NAME_BYTES:
            return plain
        return f".{hashlib.sha256(os.fsencode(self.name)).hexdigest()[:16]}.new"

    def path(self, name: str) -> str:
        """The whole path of `name`, as people read it."""
        return os.path.join(self.directory, name)

    def address(self, name: str) -> str:
        """The path of `name` for bind and connect. Only one that is too long goes by the directory's descriptor, since
        `ss -x` shows what bind was given.
        """
        plain = self.path(name)
        return plain if len(os.fsencode(plain)) <= UNIX_PATH_BYTES else f"/proc/self/fd/{self.fd}/{name}"

    def has_dead_socket(self, name: str) -> bool:
        """Whether `name` is a socket on which nobody listens; False if nothing is there. Raises SocketPathError for
        anything else.
        """
        try:
            mode = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(mode):
            raise SocketPathError(f"{self.path(name)} is {kind(mode)}; remove it or choose another path")
        self.refuse_listener(name)
        return True

    def refuse_listener(self, name: str) -> None:
        """Raise SocketPathError if somebody listens there, with the pid where it can be seen."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, explained("looking who listens there"):
            probe.setblocking(False)
            try:
                probe.connect(self.address(name))
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except BlockingIOError:
                raise _taken("a process that accepts no connections") from None
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    raise _taken("a process with another type of socket") from None
                raise
            pid = credentials_of(probe).pid
        # The kernel says 0 where the process is in a pid namespace that this one cannot see into.
        raise _taken(f"process {pid}" if pid else "a process of another container")


def published(bound: str) -> str:
    """The path where clients connect to a socket that was bound to this one, which may be a temporary name. (That of a
    long name does not say it: the result is then another path.)
    """
    directory, name = os.path.split(bound)
    plain = name.startswith(".") and name.endswith(".new")
    return os.path.join(directory, name[1 : -len(".new")]) if plain else bound


def _taken(owner: str) -> SocketPathError:
    return SocketPathError(f"{owner} already listens there; stop it or choose another path")
