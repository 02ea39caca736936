"""Unix sockets: whether containers get into their directories, strangers could put theirs there, and they are there."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked


class SocketDirectory(Struct, frozen=True, kw_only=True):
    """A directory in which the proxy makes sockets."""

    path: str
    used_by: str
    """Key path of the configuration."""
    mode: int | None = None
    """None: it does not exist."""
    is_directory: bool = True
    read_only: bool = False
    """The file system is."""
    for_others: bool = False
    """A socket in it is meant for users who are neither its owner nor in its group."""


class ServiceSocket(Struct, frozen=True, kw_only=True):
    """A socket of a service, made by others, to which the proxy delivers."""

    path: str
    used_by: str
    exists: bool = True
    is_socket: bool = True
    directory_exists: bool = True


class MissingSocket(Struct, frozen=True, kw_only=True):
    """A socket of the running proxy whose file is not there, in one line."""

    read: str


class SocketFacts(Struct, frozen=True, kw_only=True):
    directories: tuple[SocketDirectory | Unchecked, ...] = ()
    missing: tuple[MissingSocket | Unchecked, ...] = ()
    sockets: tuple[ServiceSocket | Unchecked, ...] = ()
    configured: bool = True


def judge(facts: SocketFacts) -> Iterator[Line]:
    """All lines about Unix sockets."""
    if not facts.configured:
        yield Unchecked("directories of Unix sockets", "none are known; give --config FILE")
    for directory in facts.directories:
        if isinstance(directory, Unchecked):
            yield directory
        else:
            yield from _directory(directory)
    for lost in facts.missing:
        yield lost if isinstance(lost, Unchecked) else _missing(lost)
    for item in facts.sockets:
        yield item if isinstance(item, Unchecked) else _socket(item)


def _directory(item: SocketDirectory) -> Iterator[Line]:
    if item.mode is None:
        yield Passed(f"{item.path} ({item.used_by}) does not exist; the proxy makes it")
        return
    findings = list(_faults(item, item.mode))
    yield from findings
    if not findings:
        yield Passed(f"{item.path} ({item.used_by}), mode {stat.S_IMODE(item.mode):04o}")


def _faults(item: SocketDirectory, mode: int) -> Iterator[Finding]:
    if not item.is_directory:
        yield Finding(
            name="not-a-directory", level="wrong", where=item.used_by, read=f"{item.path} is not a directory",
            cost="the proxy cannot start", mend=f"mv {item.path} elsewhere, or another path",
        )  # fmt: skip
        return
    if item.read_only:
        yield Finding(
            name="read-only-directory", level="wrong", where=item.used_by,
            read=f"{item.path} is on a file system that is mounted read-only",
            cost="the proxy cannot make its socket, and cannot remove a dead one",
            mend=f"mount -o remount,rw the file system of {item.path}, or another path",
        )  # fmt: skip
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Finding(
            name="open-directory", level="wrong", where=item.used_by,
            read=f"{item.path} has mode {stat.S_IMODE(mode):04o}: everybody may write, and there is no sticky bit",
            cost="any user can put his own socket in the place of the proxy's and read what callers send",
            mend=f"chmod 0755 {item.path}",
        )  # fmt: skip
    if item.for_others and not mode & stat.S_IXOTH:
        yield Finding(
            name="closed-directory", level="wrong", where=item.used_by,
            read=f"{item.path} has mode {stat.S_IMODE(mode):04o}, and the socket in it is meant for everybody",
            cost="containers whose user is another cannot reach the socket: connect() says EACCES",
            mend=f"chmod o+x {item.path}, or a narrower mode for the upstream",
        )  # fmt: skip


def _missing(item: MissingSocket) -> Finding:
    return Finding(
        name="missing-socket", level="wrong", where="the running proxy", read=item.read,
        cost="whoever calls, asks or takes over there finds nobody",
        mend="remove what is in the way, if something is: within 5 s the proxy puts its socket back; have what "
        "removes it (systemd-tmpfiles, a script) leave it alone",
    )  # fmt: skip


def _socket(item: ServiceSocket) -> Line:
    if not item.exists:
        missing = "has no socket" if item.directory_exists else "has not even its directory"
        return Finding(
            name="no-service-socket", level="wrong", where=item.used_by, read=f"{item.path} {missing}",
            cost="streams to the service are refused: connect_failed",
            mend="start the service; if it runs in a container, mount the directory of its socket, never the file",
        )  # fmt: skip
    if not item.is_socket:
        return Finding(
            name="not-a-socket", level="wrong", where=item.used_by, read=f"{item.path} is not a socket",
            cost="streams to the service are refused: connect_failed",
            mend=f"rm -r {item.path} and start the service; Docker makes a directory where a file to mount is missing",
        )  # fmt: skip
    return Passed(f"{item.path} ({item.used_by}) is a socket")
