"""The listening sockets that a process has got from another one, until what they are for takes them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from control.reading.addresses import Address, TcpAddress, UnixAddress
from control.system.unixsock import BoundUnixSocket, bind_unix, inherit_unix
from proxy.errors import StartError
from proxy.outbound.sockets import Heirloom

UPSTREAM, LINKS, ADMIN, HANDOVER = "upstream", "links", "admin", "handover"
"""What a socket is for."""


class Inheritance:
    """Sockets by what they are for, and their address as the configuration writes it. Owns those that nobody has taken
    (`close`).
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], Heirloom] = {}
        self._bound: list[BoundUnixSocket] = []

    def put(self, kind: str, address: str, heirloom: Heirloom) -> None:
        """Add one; where there is one already, that stays and this is closed."""
        if self._left.setdefault((kind, address), heirloom) is not heirloom:
            heirloom.close()

    def upstreams(self, addresses: Iterable[Address]) -> dict[Address, Heirloom]:
        """Take those of these addresses, where there are any."""
        found = {address: self._left.pop((UPSTREAM, str(address)), None) for address in addresses}
        return {address: heirloom for address, heirloom in found.items() if heirloom is not None}

    def links(self, address: TcpAddress) -> socket.socket | None:
        """Take the one that links arrive at."""
        heirloom = self._left.pop((LINKS, address.hostport), None)
        return None if heirloom is None else heirloom.sock

    def unix(self, kind: str, path: str, mode: int) -> BoundUnixSocket:
        """The socket of the proxy itself that has this kind and path; without one, a new one. Raises StartError."""
        heirloom = self._left.pop((kind, str(UnixAddress(path))), None)
        if heirloom is None or heirloom.lock is None or heirloom.birth is None:
            if heirloom is not None:
                heirloom.close()
            return bind_unix(path, mode=mode)
        bound = inherit_unix(path, heirloom.sock, heirloom.lock, heirloom.birth)
        self._bound.append(bound)
        return bound

    def own(self) -> None:
        """The other process has let go: files are this one's now, and those that nobody took go."""
        for bound in self._bound:
            bound.own()
        for (_, address), heirloom in self._left.items():
            if heirloom.lock is not None and heirloom.birth is not None:
                path = address.removeprefix("unix:")
                try:
                    unwanted = inherit_unix(path, heirloom.sock, os.dup(heirloom.lock), heirloom.birth)
                except StartError:  # its directory is gone: then so is the file
                    continue
                unwanted.own()
                unwanted.close()
        self.close()

    def close(self) -> None:
        """Close those that nobody has taken; their files stay. Idempotent."""
        left, self._left = self._left, {}
        for heirloom in left.values():
            heirloom.close()
