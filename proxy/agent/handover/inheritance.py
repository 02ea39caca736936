"""The listening sockets that a process has got from another one, until what they are for takes them."""

from __future__ import annotations

import socket

from control.base.reading.addresses import Address, TcpAddress, UnixAddress, listen_address
from control.base.system.unixsock import BoundUnixSocket, bind_unix, inherit_unix
from proxy.outbound.sockets import InheritableListener

UPSTREAM, LINKS, ADMIN, HANDOVER = "upstream", "links", "admin", "handover"
"""What a socket is for."""


class InheritedListeners:
    """Sockets by what they are for, and their address as the configuration writes it. Owns those that nobody has taken
    (`close`).
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], InheritableListener] = {}
        self._bound: list[BoundUnixSocket] = []

    def put(self, kind: str, address: str, inheritable: InheritableListener) -> None:
        """Add one; where there is one already, that stays and this is closed."""
        if self._left.setdefault((kind, address), inheritable) is not inheritable:
            inheritable.close()

    def upstreams(self) -> dict[Address, InheritableListener]:
        """Take all that upstreams listened on."""
        found: dict[Address, InheritableListener] = {}
        for kind, text in [key for key in self._left if key[0] == UPSTREAM]:
            found[listen_address(text)] = self._left.pop((kind, text))
        return found

    def links(self, address: TcpAddress) -> socket.socket | None:
        """Take the one that links arrive at."""
        inheritable = self._left.pop((LINKS, address.hostport), None)
        return None if inheritable is None else inheritable.sock

    def unix(self, kind: str, path: str, mode: int) -> BoundUnixSocket:
        """The socket of the proxy itself that has this kind and path; without one, a new one. Raises StartError."""
        inheritable = self._left.pop((kind, str(UnixAddress(path))), None)
        if inheritable is None or inheritable.lock is None or inheritable.birth is None:
            if inheritable is not None:
                inheritable.close()
            return bind_unix(path, mode=mode)
        bound = inherit_unix(path, inheritable.sock, inheritable.lock, inheritable.birth)
        self._bound.append(bound)
        return bound

    @property
    def in_place(self) -> bool:
        """Whether the files of the proxy's own sockets are still there."""
        return all(bound.in_place for bound in self._bound)

    def own(self) -> None:
        """The other process has let go: files are this one's now."""
        for bound in self._bound:
            bound.own()

    def close(self) -> None:
        """Close those that nobody has taken; their files stay. Idempotent."""
        left, self._left = self._left, {}
        for inheritable in left.values():
            inheritable.close()
