"""Making sockets inside other network namespaces; they stay where they were made, whoever has them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from control.base.reading.addresses import TcpAddress
from proxy.errors import NetError
from proxy.netdev.observe.namespaces import run_inside

__all__ = ["NoNamespace", "cookie_of", "identity", "listeners", "own_cookie", "sockets", "visit"]

SO_NETNS_COOKIE = 71
"""Linux 5.14 (asm-generic/socket.h); Python's socket module does not have it yet."""
IP_FREEBIND = 15
"""linux/in.h; Python's socket module does not have it."""
BACKLOG = 4096

T = TypeVar("T")


class NoNamespace(Exception):
    """There is no such namespace any more, or this process may not enter it; its text says which."""


def cookie_of(sock: socket.SocketType) -> int:
    """The number of the namespace that a socket was made in, unlike that of any other since the machine's start. Raises
    OSError before Linux 5.14.
    """
    found: int = struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
    return found


def own_cookie() -> int:
    """The number of this process's namespace. Raises OSError before Linux 5.14."""
    with socket.socket() as probe:
        return cookie_of(probe)


def identity(path: str) -> tuple[int, int] | None:
    """By what the file of a namespace is known again: device and inode. None: it is none, or not any more."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def visit(path: str, work: Callable[[], T]) -> T:
    """Do something inside the namespace whose file is `path`. Blocks. Raises NoNamespace, and what `work` raises."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNamespace(f"{path}: {error.strerror}") from None
    try:
        return run_inside(namespace, work)
    except NetError as error:
        raise NoNamespace(f"{path}: {error} (it takes CAP_SYS_ADMIN, and door.namespaces mounted ro,rslave)") from None
    finally:
        os.close(namespace)


def listeners(addresses: list[TcpAddress]) -> tuple[int, dict[TcpAddress, socket.socket | OSError]]:
    """Listen at these addresses of the namespace that the calling thread is in. Returns the namespace's number, and
    each listener, or why there is none. Raises OSError before Linux 5.14.
    """
    found: dict[TcpAddress, socket.socket | OSError] = {}
    with ExitStack() as undo:
        cookie = own_cookie()
        for address in addresses:
            try:
                sock = _listen(address)
            except OSError as error:
                found[address] = error
            else:
                undo.callback(sock.close)
                found[address] = sock
        undo.pop_all()
    return cookie, found


def _listen(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif address.host.startswith("127."):
            # Before the start of a container its loopback interface may be down, and have no addresses yet.
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def sockets(family: int, count: int) -> tuple[int, list[socket.socket]]:
    """The namespace's number, and so many unconnected sockets of it; fewer where descriptors run out. `family`: 4 or
    6.
    """
    made: list[socket.socket] = []
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    cookie = own_cookie()
    try:
        for _ in range(count):
            made.append(socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    except OSError:
        pass
    return cookie, made
