"""The last good map on disk, for a start without the control plane.

One JSON file, replaced as a whole: written beside its place, flushed to the disk, renamed. Whatever happens in between,
there is the old one or the new one. What cannot be read is no reason not to start: it is said once, and the proxy
starts with what its configuration says.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec
from msgspec import Struct

from control.mesh import HostRecord

NAME = "map.json"
VERSION = 1
"""Of the format. A proxy reads its own and nothing else: the map comes back from the control plane."""
MAX_BYTES = 64 << 20
"""Largest file that is read or written: 10,000 hosts with 20 services each are 10 MB."""
MODE = 0o600


class Stored(Struct, frozen=True, kw_only=True):
    """A map as it was at a time.

    Attributes:
        mesh, host: whose map it is; another one's is not used.
        confirmed_at: when the control plane was last heard, seconds since 1970.
    """

    version: int = VERSION
    mesh: str
    host: str
    epoch: str
    revision: int
    confirmed_at: float
    hosts: tuple[HostRecord, ...]


class Unreadable(Exception):
    """There is a file, and it is of no use; ``str()`` says why, in one line that names it."""


def path_of(state_dir: str) -> str:
    """Where the map of a proxy is."""
    return os.path.join(state_dir, NAME)


def read(path: str, mesh: str, host: str) -> Stored | None:
    """The map in the file; None if there is none. Raises Unreadable. Blocks on the file system."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path}: {(error.strerror or 'not readable').lower()}") from None
    if len(content) > MAX_BYTES:
        raise Unreadable(f"{path}: found more than {MAX_BYTES >> 20} MiB; allowed: a map that a proxy wrote")
    try:
        found = msgspec.json.decode(content, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable(f"{path}: found no map; allowed: one that a proxy wrote") from None
    if found.version != VERSION:
        raise Unreadable(f"{path}: found a map of version {found.version}; allowed: version {VERSION}")
    if (found.mesh, found.host) != (mesh, host):
        whose = msgspec.json.encode(f"{found.host} in mesh {found.mesh}"[:200]).decode()
        raise Unreadable(f"{path}: found the map of {whose}; allowed: that of this host in its mesh")
    return found


def write(path: str, stored: Stored) -> None:
    """Replace the file, in a directory that exists. Raises OSError, and leaves the old one then. Blocks on the disk."""
    content = msgspec.json.encode(stored)
    if len(content) > MAX_BYTES:
        raise OSError(0, f"a map of more than {MAX_BYTES >> 20} MiB")
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(path))


def _sync_directory(path: str) -> None:
    """So that the new name survives a power cut, too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
