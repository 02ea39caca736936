"""Socket options of local sockets, each with its reason. (Those of links are in proxy/links/options.py.)"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from control.base.system.peercred import credentials_of
from proxy.core.syscalls import peer_of

if TYPE_CHECKING:
    from proxy.config.schema import TcpConfig

LocalSocket = socket.SocketType
"""The type of local sockets: `socket.socket` without its part written in Python, which costs 0.6 µs for making and
closing one."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NORMAL_CLOSE = struct.pack("ii", 0, 0)
# An IntEnum costs more to compare with, or to hand to C, than all else here.
_UNIX, _SOL_SOCKET, _SNDBUF = int(socket.AF_UNIX), int(socket.SOL_SOCKET), int(socket.SO_SNDBUF)


class KeepAlive(NamedTuple):
    """When the kernel finds that whoever is at the other end of a silent TCP connection is gone (tcp(7)). Seconds, 1 to
    32767; `probes` 1 to 127. Together, idle + interval × probes, they are the time that it takes.

    TCP_USER_TIMEOUT, which would bound the time for bytes that stay unacknowledged as well, is left alone: the kernel
    also ends by it a connection whose reader is there and has merely stopped reading for so long. Without it such bytes
    are given up after `net.ipv4.tcp_retries2`, about a quarter of an hour.
    """

    idle: int
    interval: int
    probes: int

    @classmethod
    def of(cls, config: TcpConfig) -> KeepAlive | None:
        """As it is configured."""
        if config.keepalive_idle is None:
            return None
        return cls(config.keepalive_idle, config.keepalive_interval, config.keepalive_probes)


def keep_alive(sock: LocalSocket, settings: KeepAlive | None) -> None:
    """Have the kernel probe the other end of a local TCP socket; None: not. Nothing for AF_UNIX, whose ends cannot
    vanish. Sockets that a listener accepts from now on inherit what it has.
    """
    if sock.family == _UNIX:
        return
    sock.setsockopt(_SOL_SOCKET, socket.SO_KEEPALIVE, settings is not None)
    if settings is not None:
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, settings.idle)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, settings.interval)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, settings.probes)


def prepare_local(sock: LocalSocket) -> None:
    """Set the options of a local data-plane socket: none for AF_UNIX (its default buffer of 208 KiB suits one credit
    window; where memory is scarce, `bound_send_buffer`).

    SO_LINGER with zero seconds makes close() send RST instead of FIN (tcp(7), socket(7)). It is set here and taken back
    for a clean end (`disarm_reset`), so that the connections of a proxy that is killed are reset and never seem to have
    ended cleanly. TCP_NODELAY: a message must not wait for an ACK.
    """
    if sock.family != _UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def bound_send_buffer(sock: LocalSocket, size: int) -> None:
    """Let the kernel hold no more than `size` bytes of what is sent and not read yet, headers included. (It doubles
    what it is told, for these headers: socket(7).) A TCP socket is no longer tuned by the kernel then.
    """
    sock.setsockopt(_SOL_SOCKET, _SNDBUF, size // 2)


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
    pid, uid, _ = credentials_of(sock)
    return uid, pid


OURSELVES = -1
"""In place of a user id: the other end is this very process."""
own_pid = -1
"""This process, while `knowing_ourselves`."""


@contextmanager
def knowing_ourselves() -> Iterator[None]:
    """In this block `peer_uid` tells connections of this process from others. For a process that is a proxy and nothing
    else: where callers are in it as well, as in tests, they would be taken for the proxy.
    """
    global own_pid
    before, own_pid = own_pid, os.getpid()
    try:
        yield
    finally:
        own_pid = before


def peer_uid(sock: LocalSocket) -> int:
    """User id of the process at the other end of a connected Unix socket (SO_PEERCRED, unix(7)), or OURSELVES."""
    return peer_of(sock.fileno(), own_pid)


_TCP, _TCP_INFO = int(socket.IPPROTO_TCP), int(socket.TCP_INFO)
_RETRANSMITS = struct.Struct("=100xI")
"""tcpi_total_retrans in struct tcp_info (linux/tcp.h); there since Linux 2.6."""


_SILENCE = struct.Struct("=2xB53xI")
"""tcpi_retransmits and tcpi_last_ack_recv in struct tcp_info."""
TRIES = 2
"""Times that the kernel has sent the same again, 0.6 s after the first time at least: one lost packet is no silence."""


def silence(sock: socket.socket) -> float | None:
    """Seconds since the other end of a TCP connection has acknowledged anything, where the kernel sends the same again
    and again without an answer; None: it is heard, has nothing to acknowledge, or is no TCP connection."""
    try:
        found = sock.getsockopt(_TCP, _TCP_INFO, _SILENCE.size)
        tries, milliseconds = _SILENCE.unpack(found)
    except (OSError, struct.error):
        return None
    return milliseconds / 1000 if tries >= TRIES else None


def retransmits(sock: socket.socket) -> int:
    """Segments that the kernel has sent again on a TCP connection; 0 for any other socket."""
    try:
        found = sock.getsockopt(_TCP, _TCP_INFO, _RETRANSMITS.size)
        return int(_RETRANSMITS.unpack(found)[0])
    except (OSError, struct.error):
        return 0
