"""The listening sockets that a process has got from another one, until the parts that use them take them."""

from __future__ import annotations

import os
import socket

import structlog

from control.base.errors import StartError
from control.base.reading.addresses import Address, TcpAddress, UnixAddress, listen_address
from control.base.system.unixsock import BoundUnixSocket, bind_unix, inherit_unix
from proxy.agent.handover.predecessors import Predecessors
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

UPSTREAM, LINKS, ADMIN, HANDOVER, TELEMETRY = "upstream", "links", "admin", "handover", "telemetry"
LEASH, SCRAPE = "leash", "scrape"
"""The kinds of sockets, by what they are for; LEASH does not listen, but leads to a process (`predecessors`)."""


class InheritedListeners:
    """Inherited sockets by what they are for, and by their address as the configuration writes it. Owns those that were
    not taken yet; `close` closes them.
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], InheritableListener] = {}
        self._bound: list[tuple[BoundUnixSocket, int, int | None]] = []

    def put(self, kind: str, address: str, inheritable: InheritableListener) -> None:
        """Add a socket. If there is one already for this kind and address, that stays, and the new one is closed."""
        if self._left.setdefault((kind, address), inheritable) is not inheritable:
            inheritable.close()

    def upstreams(self) -> dict[Address, InheritableListener]:
        """Take all sockets that are for upstreams; the caller owns them."""
        found: dict[Address, InheritableListener] = {}
        for kind, text in [key for key in self._left if key[0] == UPSTREAM]:
            found[listen_address(text)] = self._left.pop((kind, text))
        return found

    def links(self, address: TcpAddress) -> socket.socket | None:
        """Take the socket for links at this address, which the caller then owns; None: there is none."""
        inheritable = self._left.pop((LINKS, address.hostport), None)
        return None if inheritable is None else inheritable.sock

    def links_elsewhere(self) -> list[str]:
        """The addresses of the sockets for links that nobody has taken."""
        return [address for kind, address in self._left if kind == LINKS]

    def scrape(self, address: TcpAddress) -> socket.socket | None:
        """Take the socket of ``telemetry.listen`` at this address, which the caller then owns; None: there is none."""
        inheritable = self._left.pop((SCRAPE, address.hostport), None)
        return None if inheritable is None else inheritable.sock

    def predecessors(self) -> Predecessors:
        """Take the leashes of all processes that still drain; the caller owns them."""
        keys = [key for key in self._left if key[0] == LEASH]
        return Predecessors([(name, self._left.pop((kind, name)).sock) for kind, name in keys])

    def unix(self, kind: str, path: str, mode: int, group: int | None = None) -> BoundUnixSocket:
        """Take the proxy's own socket of this kind and path, or open it. The caller closes it. Raises StartError."""
        inheritable = self._left.pop((kind, str(UnixAddress(path))), None)
        if inheritable is None or inheritable.lock is None or inheritable.birth is None:
            if inheritable is not None:
                inheritable.close()
            return bind_unix(path, mode=mode, group=group)
        bound = inherit_unix(path, inheritable.sock, inheritable.lock, inheritable.birth)
        self._bound.append((bound, mode, group))
        return bound

    @property
    def in_place(self) -> bool:
        """Whether the files of the proxy's own sockets are still there."""
        return all(bound.in_place for bound, _, _ in self._bound)

    def own(self) -> None:
        """The other process has given the sockets up: own the files of the proxy's own sockets, with this one's mode
        and group. If those cannot be changed they stay, and a line is logged.
        """
        for bound, mode, group in self._bound:
            bound.own()
            try:
                bound.give(mode=mode, owner=None, group=os.getegid() if group is None else group)
            except StartError as error:
                log.error("a socket keeps the rights that it had", error=str(error))

    def discard(self) -> None:
        """The other process has given the sockets up: close those that were not taken, such as that of another
        ``telemetry.socket``, and remove their files, since nobody would ever accept there.
        """
        for (kind, address), inheritable in list(self._left.items()):
            if inheritable.lock is None or inheritable.birth is None:
                continue
            del self._left[kind, address]
            try:
                path = address.removeprefix("unix:")
                bound = inherit_unix(path, inheritable.sock, inheritable.lock, inheritable.birth)
            except StartError:
                continue  # its directory is gone; the descriptors are closed
            bound.own()
            bound.close()
        self.close()

    def close(self) -> None:
        """Close the sockets that were not taken; their files stay. Idempotent."""
        left, self._left = self._left, {}
        for inheritable in left.values():
            inheritable.close()
