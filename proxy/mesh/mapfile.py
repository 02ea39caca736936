"""The last good map on disk, for a start without the control plane.

One JSON file, replaced as a whole: whatever happens meanwhile, there is the old one or the new one. What cannot be read
is no reason not to start: it is said once, and the proxy starts with what its configuration says.
"""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from control.api.mesh import HostRecord
from control.base.wholefile import write_file

NAME = "map.json"
VERSION = 1
"""Of the format. A proxy reads its own and nothing else: the map comes back from the control plane."""
MAX_BYTES = 64 << 20
"""Largest file that is read or written: 10,000 hosts with 20 services each are 10 MB."""
MODE = 0o600


class StoredMap(Struct, frozen=True, kw_only=True):
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


class UnreadableMap(Exception):
    """There is a file, and it is of no use; ``str()`` says why, in one line that names it."""


def path_of(state_dir: str) -> str:
    """Where the map of a proxy is."""
    return os.path.join(state_dir, NAME)


def read(path: str, mesh: str, host: str) -> StoredMap | None:
    """The map in the file; None if there is none. Raises UnreadableMap. Blocks on the file system."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableMap(f"{path}: {(error.strerror or 'not readable').lower()}") from None
    if len(content) > MAX_BYTES:
        raise UnreadableMap(f"{path}: found more than {MAX_BYTES >> 20} MiB; allowed: a map that a proxy wrote")
    try:
        found = msgspec.json.decode(content, type=StoredMap)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableMap(f"{path}: found no map; allowed: one that a proxy wrote") from None
    if found.version != VERSION:
        raise UnreadableMap(f"{path}: found a map of version {found.version}; allowed: version {VERSION}")
    if (found.mesh, found.host) != (mesh, host):
        whose = msgspec.json.encode(f"{found.host} in mesh {found.mesh}"[:200]).decode()
        raise UnreadableMap(f"{path}: found the map of {whose}; allowed: that of this host in its mesh")
    return found


def write(path: str, stored: StoredMap) -> None:
    """Replace the file, in a directory that exists. Raises OSError, and leaves the old one then. Blocks on the disk."""
    content = msgspec.json.encode(stored)
    if len(content) > MAX_BYTES:
        raise OSError(0, f"a map of more than {MAX_BYTES >> 20} MiB")
    write_file(path, content, MODE)
