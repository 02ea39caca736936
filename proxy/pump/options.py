"""Socket options of local sockets, each with its reason. (Those of links are in proxy/links/options.py.)"""

from __future__ import annotations

import socket
import struct

LocalSocket = socket.SocketType
"""The type of local sockets: `socket.socket` without its part written in Python, which costs 0.6 µs for making and
closing one."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NORMAL_CLOSE = struct.pack("ii", 0, 0)
_UCRED = struct.Struct("iII")
# inlined: socket.AF_UNIX, socket.SOL_SOCKET, socket.SO_PEERCRED
_UNIX, _SOL_SOCKET, _PEERCRED = int(socket.AF_UNIX), int(socket.SOL_SOCKET), int(socket.SO_PEERCRED)


def prepare_local(sock: LocalSocket) -> None:
    """Set the options of a local data-plane socket: none for AF_UNIX (its default buffer of 208 KiB suits one credit
    window).

    SO_LINGER with zero seconds makes close() send RST instead of FIN (tcp(7), socket(7)). It is set here and taken back
    for a clean end (`disarm_reset`), so that the connections of a proxy that is killed are reset and never seem to have
    ended cleanly. TCP_NODELAY: a message must not wait for an ACK.
    """
    if sock.family != _UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def disarm_reset(sock: LocalSocket) -> None:
    """Make close() send FIN again instead of RST."""
    if sock.family != _UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NORMAL_CLOSE)


def peer_process(sock: LocalSocket) -> tuple[int, int] | None:
    """User id and process id at the other end of a connected Unix socket; None if this is no Unix socket. (The process
    id is 0 if the process is in a pid namespace that this one cannot see into.)
    """
    if sock.family != _UNIX:
        return None
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid, pid


def peer_uid(sock: LocalSocket) -> int:
    """User id of the process at the other end of a connected Unix socket (SO_PEERCRED, unix(7))."""
    # inlined: peer_process
    uid: int = _UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _PEERCRED, 12))[1]
    return uid
