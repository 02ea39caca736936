"""Who owns a local connection's descriptor, at a fraction of what a socket object costs: making one of those asks the
kernel for its address, and few streams ever need more of their socket than `syscalls` does.
"""

from __future__ import annotations

import socket

from proxy.core.syscalls import close
from proxy.pump.options import LocalSocket, bound_send_buffer

_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class Descriptor:
    """Owns the descriptor of a connected, non-blocking stream socket. Whoever has it calls `close` or `socket`; if
    nobody has it any more, it is closed too.

    Attributes:
        fd: the descriptor; -1: it is closed, or a socket object has it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """As that of a socket."""
        return self.fd

    def close(self) -> None:
        """Close it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close(fd)

    def socket(self) -> LocalSocket:
        """The same as a socket object, which owns it from now on."""
        sock = LocalSocket(-1, _STREAM, 0, self.fd)
        self.fd = -1
        return sock


def owner_of(fd: int, bound: int) -> LocalSocket | Descriptor:
    """Who owns a new descriptor from now on.

    Args:
        bound: bytes that the kernel may hold for the other end; 0: as many as it likes.
    """
    new = Descriptor.__new__(Descriptor)  # a plain call is dearer where this is compiled
    new.fd = fd
    if not bound:
        return new
    bound_send_buffer(sock := new.socket(), bound)
    return sock


def fd_of(owner: LocalSocket | Descriptor) -> int:
    """The descriptor of whoever owns one; -1: it does not any more."""
    if isinstance(owner, Descriptor):
        own = owner
        return own.fd
    return owner.fileno()


def close_owned(owner: LocalSocket | Descriptor) -> None:
    """Close it, whoever owns it."""
    if isinstance(owner, Descriptor):
        own = owner
        own.close()
    else:
        owner.close()


def socket_of(owner: LocalSocket | Descriptor) -> LocalSocket:
    """The socket object of whoever owns a descriptor."""
    return owner.socket() if isinstance(owner, Descriptor) else owner
