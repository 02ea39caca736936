"""TCP connections of this namespace, whoever has them, and what interfaces their sockets are bound to (sock_diag(7)).

/proc/net/tcp does not show the second. No privilege.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from proxy.links.rtnetlink import dump

_REQUEST = struct.Struct("=BBBxI48x")
_ANSWER = struct.Struct("=BBBB2s2s16s16sI")
_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_ESTABLISHED = 1 << 1


class TcpConnection(NamedTuple):
    """An established connection. ``bound``: the index of the interface that its socket is bound to; 0: none."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    bound: int


def connections() -> tuple[TcpConnection, ...]:
    """All of this thread's namespace. Raises OSError if the kernel does not tell."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as sock:
        return tuple(found for family in (socket.AF_INET, socket.AF_INET6) for found in _of(sock, family))


def _of(sock: socket.socket, family: socket.AddressFamily) -> Iterator[TcpConnection]:
    for answer in dump(sock, _BY_FAMILY, _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ESTABLISHED)):
        _, _, _, _, local_port, remote_port, local, remote, bound = _ANSWER.unpack_from(answer)
        size = 4 if family == socket.AF_INET else 16
        here, there = (socket.inet_ntop(family, raw[:size]) for raw in (local, remote))
        yield TcpConnection(here, int.from_bytes(local_port, "big"), there, int.from_bytes(remote_port, "big"), bound)
