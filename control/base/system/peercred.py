"""Who is at the other end of a connected Unix socket (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Protocol

__all__ = ["UCRED", "ConnectedSocket", "PeerCredentials", "credentials_of"]

UCRED = struct.Struct("iII")
"""struct ucred (unix(7)): process, user and group."""


class ConnectedSocket(Protocol):
    """A socket of the standard library, with or without its part written in Python, or one of trio."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


class PeerCredentials(NamedTuple):
    """Process, user and group, as this process's namespaces number them.

    They are those of the process that called connect(2); at the end that connected, of the one that called listen(2).
    `pid` is 0 if that process is in a pid namespace that this one cannot see into. A user or group that this process's
    user namespace does not map is the overflow uid or gid (65534).
    """

    pid: int
    uid: int
    gid: int


def credentials_of(sock: ConnectedSocket) -> PeerCredentials:
    """The credentials of the other end of a connected Unix socket. Raises OSError if the system cannot say."""
    return PeerCredentials(*UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)))
