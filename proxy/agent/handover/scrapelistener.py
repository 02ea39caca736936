"""The socket at ``telemetry.listen``, for as long as the proxy runs. It goes to the process that takes over, so that no
scrape finds nobody there.
"""

from __future__ import annotations

import os
import socket

import trio

from control.base.reading.addresses import TcpAddress, socket_address
from proxy.errors import StartError
from proxy.links.acceptgate import AcceptGate

BACKLOG = 64
"""Connections that the kernel keeps: a scraper, and whoever looks."""


class ScrapeListener:
    """Owns the socket, from the start.

    Args:
        inherited: a socket that another process has opened, or what stands in for it (`receiver`).

    Attributes:
        address: where; sock: the socket.
        gate, listeners: as those of `ownsocket.OwnSocket`.
    """

    def __init__(self, address: TcpAddress, inherited: socket.socket | None = None) -> None:
        """Raises StartError."""
        self.address, self.gate = address, AcceptGate()
        self.listeners: list[trio.SocketListener] = []
        self.sock = _opened(address) if inherited is None else inherited

    def use(self) -> None:
        """The socket is there: until then something else may have stood in for it."""
        self.listeners[:] = [trio.SocketListener(trio.socket.from_stdlib_socket(self.sock))]

    def close(self) -> None:
        """Accept nobody any more. Idempotent."""
        self.gate.close()
        self.sock.close()


def _opened(address: TcpAddress) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(socket_address(address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StartError(f"cannot listen on {address.hostport} (telemetry.listen): {why}") from None
    return sock
