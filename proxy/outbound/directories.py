"""The Unix sockets of containers (`hostlane.sockets`): a directory for each one that asks, which it has mounted, and in
it a socket for each service that it calls.

Whoever calls there is known by the socket. So nobody else may come near it: the directory above is this user's alone,
and a container reaches its own by the mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

import structlog

from control.base.reading.addresses import Address, UnixAddress
from control.base.system.socketpath import SocketPathError
from control.base.system.unixsock import DIRECTORY_MODE, make_directory
from proxy.config.schema import UpstreamConfig
from proxy.errors import StartError
from proxy.outbound.sockets import ListenerSet, OpenListener

__all__ = ["ContainerDirectories", "ContainerSockets"]

log = structlog.get_logger()

FOLDER = "containers"
"""In `socket_dir`."""
OURS_ALONE = 0o700
_KEY = "hostlane.sockets"


class ContainerSockets(NamedTuple):
    """What one container asks for; `caller`: the service that it belongs to, empty: not known."""

    services: tuple[str, ...]
    caller: str


class ContainerDirectories:
    """All of them.

    Args:
        socket_dir: where this host has its sockets.

    Attributes:
        wanted: what containers ask for, by the names of their directories.
        serving: the service of each socket that is open, and the upstream that stands for it.
        problems: a line for each socket that could not be had.
    """

    def __init__(self, socket_dir: str) -> None:
        self._path = f"{socket_dir}/{FOLDER}"
        self.wanted: dict[str, ContainerSockets] = {}
        self.serving: dict[Address, tuple[str, UpstreamConfig]] = {}
        self.problems: tuple[str, ...] = ()
        self._prepared: dict[Address, tuple[str, UpstreamConfig]] = {}
        self._adopted: dict[str, ContainerSockets] = {}

    @property
    def services(self) -> frozenset[str]:
        """The services that are called."""
        return frozenset(service for asked in self.wanted.values() for service in asked.services)

    @property
    def changed(self) -> bool:
        """Whether something else is wanted than was adopted, or something of it could not be had."""
        return self.wanted != self._adopted or bool(self.problems)

    def prepare(self, sockets: ListenerSet, undo: ExitStack) -> dict[Address, OpenListener]:
        """As `ListenerSet.prepare`, for what is wanted; `adopt` follows, or `undo` is closed. One that cannot be had is
        logged once, and all others are. Raises nothing.
        """
        found: dict[Address, OpenListener] = {}
        problems: list[str] = []
        self._prepared = {}
        for name, asked in self.wanted.items():
            for service in asked.services:
                address = UnixAddress(f"{self._path}/{name}/{service}.sock")
                upstream = UpstreamConfig(listen=address, caller=asked.caller or None)
                try:
                    if address not in sockets.opened and (note := self._make(name)):
                        log.error("not as its labels ask", error=f"container {name}: {_KEY}: {note}")
                    found |= sockets.prepare({_KEY: upstream}, undo)
                except StartError as error:
                    problems.append(f"container {name}: {_KEY}: {error}")
                else:
                    self._prepared[address] = service, upstream
        for line in problems:
            if line not in self.problems:
                log.error("not as its labels ask", error=line)
        self.problems = tuple(problems)
        return found

    def adopt(self) -> None:
        """Serve what was prepared; `tidy` follows when all else is closed."""
        self.serving, self._prepared = self._prepared, {}

    def tidy(self) -> None:
        """Remove the directories that were wanted, and are not any more."""
        before, self._adopted = self._adopted, dict(self.wanted)
        for name in before.keys() - self.wanted.keys():
            self._remove(name)

    def sweep(self) -> None:
        """Remove the directories of containers that have gone while no proxy was there."""
        with suppress(OSError):
            for name in os.listdir(self._path):
                if name not in self.wanted:
                    self._remove(name)

    def _make(self, name: str) -> str:
        """Have a directory of the container's. Returns what is to be said of it; raises StartError."""
        path = f"{self._path}/{name}"
        try:
            make_directory(os.path.dirname(self._path))
            _own(self._path, OURS_ALONE)
            try:
                _own(path, DIRECTORY_MODE)
            except _Foreign as foreign:
                try:
                    os.rmdir(path)
                except OSError:
                    raise foreign from None
                _own(path, DIRECTORY_MODE)
                return f"{path} was there first, made by user {foreign.uid}, as an engine does; restart the container"
        except _Foreign as foreign:
            raise StartError(f"{foreign.path} is not this user's, but user {foreign.uid}'s; remove it") from None
        except SocketPathError as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"{path}: {error.strerror}") from None
        return ""

    def _remove(self, name: str) -> None:
        path = f"{self._path}/{name}"
        with suppress(OSError):
            for each in _ours(path):
                os.unlink(each)
            os.rmdir(path)


class _Foreign(Exception):
    """A path is another user's."""

    def __init__(self, path: str, uid: int) -> None:
        super().__init__(path)
        self.path, self.uid = path, uid


def _own(path: str, mode: int) -> None:
    """Have a directory that is this user's. Raises OSError, _Foreign."""
    with suppress(FileExistsError):
        os.mkdir(path, mode)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise _Foreign(path, found.st_uid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _ours(path: str) -> Iterator[str]:
    """What a proxy that was killed has left in a directory: sockets and their lock files."""
    for each in os.scandir(path):
        hidden = each.name.startswith(".") and each.name.endswith((".lock", ".new"))
        if hidden or each.name.endswith(".sock"):
            yield each.path
