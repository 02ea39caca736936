"""The life of a listening Unix stream socket: the system looks after the socket, but not after the file with its name.

Four rules, kept also across `kill -9` at any point:

1. A path has one owner. `.NAME.lock` beside the socket is held with flock while the socket exists; the kernel lets go
   of it when the process dies, so a lock file that was left behind locks nobody out. A program that knows nothing of
   the lock is found by connecting to its socket.
2. The path never shows an unfinished socket. It is bound as `.NAME.new`, gets mode and owner, listens, and then takes
   the path in one step (link, or rename over a dead socket). A client finds a dead socket, nothing, or one that works.
3. Only our own files and dead sockets are removed. Device and inode say whether a file is still ours: no other file
   can get that inode number while our socket is open.
4. What a crash leaves (a dead socket, `.NAME.lock`, `.NAME.new`) is found and replaced by the next start.

Two limits. A program that knows nothing of the lock loses its socket if it binds without listening yet, or replaces a
dead one, in the very microseconds in which we replace what looks dead to us. And `ss -x` and getpeername() go on
showing the name under which the socket was bound, `.NAME.new`.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import NamedTuple, Self

from control.base.errors import StartError
from control.base.system.ownfiles import RemovalRight, is_same, take_lock
from control.base.system.socketpath import SocketPath, SocketPathError, explained, split

__all__ = [
    "BACKLOG",
    "DIRECTORY_MODE",
    "BoundUnixSocket",
    "SocketIdentity",
    "bind_unix",
    "group_number",
    "inherit_unix",
    "make_directory",
    "rebind_unix",
    "reclaim_unix",
]

BACKLOG = 4096
"""Connections that may wait to be accepted: what the kernel allows since Linux 5.4 (net.core.somaxconn). A non-blocking
caller that finds the queue full gets EAGAIN, which most clients take for a failure; one that waits costs little."""

DIRECTORY_MODE = 0o755
"""Of directories that did not exist, whatever the umask: every container may look up the sockets, each socket's own
mode says who connects, and only the proxy's user puts or replaces one."""

_UNCHANGED = -1
_MAX_ID = 2**32 - 2
# The next one would be (uid_t)-1, which chown takes for "unchanged".


class SocketIdentity(NamedTuple):
    """By what a socket's file is recognised: device, inode and owner, as it was made."""

    device: int
    inode: int
    uid: int
    gid: int


class BoundUnixSocket:
    """A listening socket and the files that belong to it; ``with`` closes it.

    Attributes:
        path: where clients connect.
        lock: descriptor of the lock file.
        socket: non-blocking, close-on-exec, listening. Whoever accepts on it stops before `close`.
    """

    def __init__(
        self, path: str, listener: socket.socket, place: SocketPath, born: os.stat_result, lock: int, cleanup: ExitStack
    ) -> None:
        self.path = path
        self.socket = listener
        self.lock = lock
        self._place, self._born = place, born
        self._deed = place.deed
        self._cleanup = cleanup

    @property
    def birth(self) -> SocketIdentity:
        """What `inherit_unix` needs to know of the file."""
        return SocketIdentity(self._born.st_dev, self._born.st_ino, self._born.st_uid, self._born.st_gid)

    @property
    def in_place(self) -> bool:
        """Whether its file still has the path, so that clients find it."""
        try:
            return os.path.samestat(os.lstat(self.path), self._born)
        except OSError:
            return False

    def own(self, ours: bool = True) -> None:
        """Whether `close` removes the file and lets go of the path: only one of the processes that hold this socket
        may.
        """
        self._deed.ours = ours
        if ours:
            # Whoever asks who listens there (SO_PEERCRED) is told of the process that called listen(2) last, unix(7).
            with suppress(OSError):  # closed already
                self.socket.listen(BACKLOG)

    def refuse(self) -> None:
        """Have the kernel refuse whoever connects from now on (ECONNREFUSED), while those who wait can still be
        accepted: so none is lost between the last accept and `close`. Does nothing if the socket is another process's.
        """
        if self._deed.ours:
            with suppress(OSError):  # closed already
                self.socket.shutdown(socket.SHUT_RD)

    def give(self, *, mode: int, owner: int | str | None, group: int | str | None) -> None:
        """Change who may connect; arguments as those of `bind_unix`. Raises StartError; some of it may be done then."""
        place = self._place
        try:
            uid, gid = _ids(owner, group)
            with explained(f"opening {self.path}"):
                file = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
            try:
                if not os.path.samestat(os.fstat(file), self._born):
                    raise SocketPathError("another file has taken the path; remove it and restart the proxy")
                # None: as the socket was made, which need not be as it is by now.
                uid = self._born.st_uid if uid == _UNCHANGED else uid
                gid = self._born.st_gid if gid == _UNCHANGED else gid
                _give(file, mode, uid, gid)
            finally:
                os.close(file)
        except SocketPathError as obstacle:
            raise StartError(f"cannot change unix:{self.path}: {obstacle}") from obstacle.__cause__

    def close(self) -> None:
        """Remove the file unless it is no longer ours, close the socket, let go of the path. May be called again.

        Never raises: a file that cannot be removed (read-only by now, say) stays, and the next start replaces it.
        Connections that nobody accepted are closed. The directory stays: a container may have it mounted.
        """
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bind_unix(
    path: str,
    *,
    mode: int = 0o666,
    owner: int | str | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> BoundUnixSocket:
    """Listen on the absolute ``path``; ``owner`` and ``group`` are names or numbers, None keeps this process's own.

    Blocks on nothing but the file system. A process that already listens there sees one connection that ends at once.

    Raises:
        StartError: one line with the path, what is in the way and what to do. Only created directories stay behind.
    """
    try:
        directory, name = split(path)
        uid, gid = _ids(owner, group)
        with ExitStack() as cleanup:
            place, lock = _open(directory, name, cleanup)
            listener, born = _listen(place, mode, uid, gid, backlog, cleanup, kind)
            return BoundUnixSocket(path, listener, place, born, lock, cleanup.pop_all())
    except SocketPathError as obstacle:
        raise StartError(f"cannot listen on unix:{path}: {obstacle}") from obstacle.__cause__


def rebind_unix(
    lost: BoundUnixSocket,
    *,
    mode: int = 0o666,
    owner: int | str | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
) -> BoundUnixSocket:
    """Listen again on the path of a socket whose file somebody has removed: with a new socket, since a file that has no
    name any more cannot be given one.

    The lost socket goes on listening, for whoever still has its file (mounted by itself into a container, say). Its
    maker closes it; the path is not its own any more. Raises StartError as `bind_unix`, and nothing has changed.
    """
    try:
        directory, name = split(lost.path)
        uid, gid = _ids(owner, group)
        with ExitStack() as cleanup:
            shared = _share_lock(lost, directory, name, cleanup)
            place, lock = shared or _open(directory, name, cleanup)
            try:
                with ExitStack() as made:
                    listener, born = _listen(place, mode, uid, gid, backlog, made)
                    cleanup.callback(made.pop_all().close)
            except BaseException:
                place.deed.ours = shared is None  # a lock that is shared is still the lost socket's
                raise
            lost.own(False)
            return BoundUnixSocket(lost.path, listener, place, born, lock, cleanup.pop_all())
    except SocketPathError as obstacle:
        raise StartError(f"cannot listen on unix:{lost.path}: {obstacle}") from obstacle.__cause__


def inherit_unix(path: str, listener: socket.socket, lock: int, birth: SocketIdentity) -> BoundUnixSocket:
    """The same socket in another process, which got both descriptors from the one that made it. It is not its own
    (`BoundUnixSocket.own`) until that one has let go. Takes both descriptors over. Raises StartError; they are closed
    then.
    """
    try:
        with ExitStack() as cleanup:
            cleanup.callback(listener.close)
            deed = RemovalRight(ours=False)
            closing = cleanup.enter_context(ExitStack())
            closing.callback(os.close, lock)
            directory, name = split(path)
            with explained(f"opening directory {directory}"):
                fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            closing.pop_all()
            place = SocketPath(directory, name, fd, deed)
            born = os.stat_result((0, birth.inode, birth.device, 0, birth.uid, birth.gid, 0, 0, 0, 0))
            cleanup.callback(os.close, fd)
            cleanup.callback(deed.release_lock, fd, place.lock, lock)
            cleanup.callback(deed.remove, fd, place.name, born)
            listener.setblocking(False)
            return BoundUnixSocket(path, listener, place, born, lock, cleanup.pop_all())
    except SocketPathError as obstacle:
        raise StartError(f"cannot take unix:{path} over: {obstacle}") from obstacle.__cause__


def reclaim_unix(path: str, birth: SocketIdentity) -> int | None:
    """The lock of a socket that somebody has kept over the end of the process that made it, for `inherit_unix`; the
    caller closes the descriptor. None: the path is another file's by now, or somebody holds the lock. Raises nothing.
    """
    with suppress(OSError, SocketPathError), ExitStack() as cleanup:
        directory, name = split(path)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        cleanup.callback(os.close, fd)
        place = SocketPath(directory, name, fd)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISSOCK(found.st_mode) and (found.st_dev, found.st_ino) == (birth.device, birth.inode):
            return take_lock(fd, place.lock)
    return None


def group_number(key: str, group: int | str | None) -> int | None:
    """The number of a group that the configuration names under `key`. Raises StartError if there is none."""
    return _number_of(key, None, group)[1]


def user_number(key: str, user: int | str | None) -> int | None:
    """As `group_number`."""
    return _number_of(key, user, None)[0]


def _number_of(key: str, owner: int | str | None, group: int | str | None) -> tuple[int | None, int | None]:
    try:
        uid, gid = _ids(owner, group)
    except SocketPathError as obstacle:
        raise StartError(f"{key}: {obstacle}") from None
    return None if uid == _UNCHANGED else uid, None if gid == _UNCHANGED else gid


def _ids(owner: int | str | None, group: int | str | None) -> tuple[int, int]:
    uid = _number("user", owner, lambda name: pwd.getpwnam(name).pw_uid)
    return uid, _number("group", group, lambda name: grp.getgrnam(name).gr_gid)


def _number(kind: str, value: int | str | None, look_up: Callable[[str], int]) -> int:
    if value is None:
        return _UNCHANGED
    if isinstance(value, str) and not value.isdecimal():
        try:
            return look_up(value)
        except (KeyError, ValueError):
            hint = f"write an existing {kind} or a number (a container has an /etc/passwd and /etc/group of its own)"
            raise SocketPathError(f"there is no {kind} {value!r} here; {hint}") from None
    if not 0 <= int(value) <= _MAX_ID:
        raise SocketPathError(f"{value} is not the number of a {kind}; allowed are 0 to {_MAX_ID}")
    return int(value)


def _open(directory: str, name: str, cleanup: ExitStack) -> tuple[SocketPath, int]:
    """Open the directory, created if need be, and take the lock: its descriptor."""
    make_directory(directory)
    with explained(f"opening directory {directory}"):
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    cleanup.callback(os.close, fd)
    place = SocketPath(directory, name, fd)
    with explained(f"locking {place.path(place.lock)}"):
        lock = take_lock(fd, place.lock)
    if lock is None:
        place.refuse_listener(name)
        raise SocketPathError(f"a process that is just starting or stopping holds {place.path(place.lock)}; try again")
    cleanup.callback(place.deed.release_lock, fd, place.lock, lock)
    return place, lock


def _share_lock(
    lost: BoundUnixSocket, directory: str, name: str, cleanup: ExitStack
) -> tuple[SocketPath, int] | None:
    """As `_open`, with the lock that `lost` holds; None if its file is not in the directory any more."""
    with ExitStack() as opened, explained(f"opening directory {directory}"):
        try:
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        opened.callback(os.close, fd)
        place = SocketPath(directory, name, fd)
        if not is_same(fd, place.lock, os.fstat(lost.lock)):
            return None
        lock = os.dup(lost.lock)  # flock(2): both descriptors hold the one lock
        opened.callback(place.deed.release_lock, fd, place.lock, lock)
        cleanup.callback(opened.pop_all().close)
        return place, lock


def make_directory(path: str) -> None:
    """Make a directory of `DIRECTORY_MODE`, and those above it, unless it is there. Raises SocketPathError."""
    if os.path.isdir(path):
        return
    make_directory(os.path.dirname(path))
    with explained(f"creating directory {path}"):
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            if os.path.isdir(path):
                return
            raise SocketPathError(f"{path} is not a directory; remove it or choose another path") from None
        # The umask had its say in mkdir. By descriptor, because chmod would follow a link put there meanwhile.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, DIRECTORY_MODE)
        finally:
            os.close(fd)


def _listen(
    place: SocketPath,
    mode: int,
    uid: int,
    gid: int,
    backlog: int,
    cleanup: ExitStack,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> tuple[socket.socket, os.stat_result]:
    """The listening socket, and its file as it was made."""
    with explained("opening a socket"):
        listener = socket.socket(socket.AF_UNIX, kind)
    cleanup.callback(listener.close)
    listener.setblocking(False)
    file = _bind(place, listener)
    try:
        born = os.fstat(file)
        for name in (place.temporary, place.name):
            cleanup.callback(place.deed.remove, place.fd, name, born)
        _give(file, mode, uid, gid)
    finally:
        os.close(file)
    with explained("putting the socket in place"):
        listener.listen(backlog)
        _publish(place)
    return listener, born


def _bind(place: SocketPath, listener: socket.socket) -> int:
    """Bind to the temporary name; returns a descriptor of the file, as a name may lead elsewhere a moment later."""
    with explained(f"creating {place.path(place.temporary)}"):
        if place.has_dead_socket(place.temporary):
            os.unlink(place.temporary, dir_fd=place.fd)
        listener.bind(place.address(place.temporary))
        return os.open(place.temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)


def _give(file: int, mode: int, uid: int, gid: int) -> None:
    """Mode first: to change that of a file that was given away takes one capability more (CAP_FOWNER)."""
    by_descriptor = f"/proc/self/fd/{file}"
    with explained(f"setting mode {mode:04o}"):
        os.chmod(by_descriptor, mode)
    receivers = [f"{kind} {number}" for kind, number in (("user", uid), ("group", gid)) if number != _UNCHANGED]
    with explained(f"giving the socket to {' and '.join(receivers)}"):
        if receivers:
            os.chown(by_descriptor, uid, gid)


def _publish(place: SocketPath) -> None:
    if not place.has_dead_socket(place.name):
        try:
            # Unlike rename, link takes nothing away from a program that binds this path at the same moment.
            os.link(place.temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd, follow_symlinks=False)
        except FileExistsError:
            raise SocketPathError("another program has just taken this path; stop it or choose another path") from None
        except OSError:
            # A file system without hard links, or fs.protected_hardlinks and a file that was given away.
            pass
        else:
            os.unlink(place.temporary, dir_fd=place.fd)
            return
    os.rename(place.temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
