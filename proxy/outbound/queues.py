"""How many callers are in the kernel's queue of a listening socket: those whom the proxy has not accepted yet."""

from __future__ import annotations

import os
import socket
import struct

SOCK_DIAG, BY_FAMILY, REQUEST = 4, 20, 1
"""NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST (linux/netlink.h, sock_diag.h)."""
SHOW_QUEUE, QUEUE = 0x10, 4
"""UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN (linux/unix_diag.h)."""
LISTENING = 1 << 10
"""TCP_LISTEN, which names the state of Unix sockets, too."""
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_MESSAGE_SIZE = 16
_ATTRIBUTE = struct.Struct("=HH")
_QUEUES = struct.Struct("=I")
_TCP_QUEUE = struct.Struct("=24xI")
"""tcpi_unacked, which of a listening socket is the length of its queue (struct tcp_info, linux/tcp.h)."""
_ANY = 0xFFFFFFFF


class ListenQueues:
    """Asks the kernel, some µs for each socket. `close` it in the end."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._denied = False

    def length(self, sock: socket.SocketType) -> int | None:
        """Of a listening socket; None: this machine does not say so."""
        try:
            if sock.family != socket.AF_UNIX:
                found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_QUEUE.size)
                return int(_TCP_QUEUE.unpack(found)[0])
            return self._unix(os.fstat(sock.fileno()).st_ino)
        except (OSError, struct.error):
            return None

    def _unix(self, inode: int) -> int | None:
        if self._denied:
            return None
        if self._netlink is None:
            try:
                kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                self._netlink = socket.socket(socket.AF_NETLINK, kind, SOCK_DIAG)
            except OSError:
                self._denied = True
                return None
        body = _REQUEST.pack(socket.AF_UNIX, 0, 0, LISTENING, inode, SHOW_QUEUE, _ANY, _ANY)
        self._netlink.send(_HEADER.pack(_HEADER.size + len(body), BY_FAMILY, REQUEST, 0, 0) + body)
        return _queue_in(self._netlink.recv(4096))

    def close(self) -> None:
        """Idempotent."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def _queue_in(answer: bytes) -> int | None:
    """The length of the queue in an answer; None: it is an error."""
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind != BY_FAMILY:
        return None
    pos = _HEADER.size + _MESSAGE_SIZE
    while pos + _ATTRIBUTE.size <= length:
        size, name = _ATTRIBUTE.unpack_from(answer, pos)
        if name == QUEUE:
            return int(_QUEUES.unpack_from(answer, pos + _ATTRIBUTE.size)[0])
        pos += (max(size, _ATTRIBUTE.size) + 3) & ~3
    return None
