"""What is open inside containers' namespaces: listeners, each also held by the proxy, and what is offered."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog
import trio

from control.base.reading.addresses import TcpAddress, ip_port
from proxy.door import namespaces
from proxy.door.desired import Desired, Room
from proxy.door.messages import MOST_STOCK, End, Listener, Offer, Stock, Withdraw
from proxy.door.namespaces import NoNamespace

__all__ = ["OpenRoom", "Rooms"]

log = structlog.get_logger()

AGAIN = 0.5
"""Seconds until what could not be had is tried again."""
PATIENCE = 2.0
"""Seconds until it is said: a proxy that holds the address has shown it by then, and the engine has told of the end of
a container whose namespace is gone."""
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Tell = Callable[[msgspec.Struct, list[socket.socket]], None]
"""Takes a message for every proxy, and the sockets that go with it, of which it sends duplicates."""


@dataclass
class OpenRoom:
    """What is open in the namespace of one container.

    Attributes:
        room: what should be.
        file: by what the namespace's file is known again; cookie: the namespace's number.
        offers: what the proxies were told of.
    """

    room: Room
    path: str
    file: tuple[int, int] | None
    cookie: int
    listeners: dict[TcpAddress, socket.socket] = field(default_factory=dict)
    offers: dict[str, TcpAddress] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """Whether the engine has taken the namespace down."""
        return self.file is None or namespaces.identity(self.path) != self.file

    def listener(self, address: TcpAddress) -> Listener:
        """The message for a listener."""
        room = self.room
        return Listener(self.cookie, address.hostport, room.listeners[address], room.caller, room.name)

    def offer(self, service: str) -> Offer:
        """The message for an offer."""
        return Offer(self.cookie, service, self.room.offers[service].hostport, self.room.name)

    def close(self) -> None:
        """Close the listeners."""
        for sock in self.listeners.values():
            sock.close()
        self.listeners.clear()


class Rooms:
    """All of them. Owns the listeners until `close`.

    Args:
        directory: where the engine has the files of namespaces.
        tell: see `Tell`.
    """

    def __init__(self, directory: str, tell: Tell) -> None:
        self._directory, self._tell = directory, tell
        self._open: dict[str, OpenRoom] = {}
        self._kept: dict[tuple[int, TcpAddress], socket.socket] | None = {}
        self._lacks: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def __iter__(self) -> Iterator[OpenRoom]:
        return iter([*self._open.values()])

    @property
    def problems(self) -> list[str]:
        """A line for each address or namespace that has not been had for a while."""
        now = trio.current_time()
        return [line for line, since in self._lacks.items() if now - since >= PATIENCE]

    @property
    def lacks(self) -> list[str]:
        """The same for those that the last `become` has not had, however long that is."""
        return [*self._lacks]

    @property
    def unfinished(self) -> bool:
        """Whether something could not be had, and is to be tried again."""
        return bool(self._lacks)

    def _lack(self, room: Room, why: object) -> None:
        line = f"container {room.name}: {why}"
        self._lacks[line] = self._before.get(line, trio.current_time())

    def end(self, container: str) -> None:
        """The container has ended: close what was open there, and have the proxies close it. Idempotent."""
        ended = self._open.pop(container, None)
        if ended is not None:
            ended.close()
            self._tell(End(ended.cookie, ended.room.name), [])
            log.info("container ended", container=ended.room.name)

    async def become(self, wanted: Desired) -> None:
        """Open and close what differs. Raises nothing; what cannot be had is in `problems` after a while. Cancelled,
        some of it may be done, and the next call does the rest.
        """
        self._before, self._lacks = self._lacks, {}
        for container, each in list(self._open.items()):
            room = wanted.rooms.get(container)
            if room is None or room.namespace != each.room.namespace:
                self.end(container)
        for room in wanted.rooms.values():
            try:
                await self._become(room)
            except NoNamespace as error:
                self.end(room.container)
                self._lack(room, error)
            except OSError as error:
                self._lack(room, error.strerror or error)

    async def _become(self, room: Room) -> None:
        found = self._open.get(room.container)
        missing = [address for address in room.listeners if found is None or address not in found.listeners]
        if found is None or missing:
            path = os.path.join(self._directory, room.namespace)
            file = namespaces.identity(path)
            # Shielded: the sockets would be nobody's.
            with trio.CancelScope(shield=True):
                work = partial(namespaces.listeners, missing)
                cookie, made = await trio.to_thread.run_sync(namespaces.visit, path, work)
            if found is None:
                found = self._open[room.container] = OpenRoom(room, path, file, cookie)
                log.info("container entered", container=room.name, uses=len(room.listeners), offers=len(room.offers))
            found.room = room
            self._take(found, made)
        found.room = room
        for service in [name for name in found.offers if found.offers[name] != room.offers.get(name)]:
            del found.offers[service]
            self._tell(Withdraw(found.cookie, service), [])
        for service, address in room.offers.items():
            if service not in found.offers:
                found.offers[service] = address
                self._tell(found.offer(service), [])

    def _take(self, room: OpenRoom, made: dict[TcpAddress, socket.socket | OSError]) -> None:
        for address, got in made.items():
            if address in room.listeners:  # a proxy has shown it meanwhile
                if isinstance(got, socket.socket):
                    got.close()
            elif isinstance(got, socket.socket):
                room.listeners[address] = got
                self._tell(room.listener(address), [got])
            elif self._kept is not None and (kept := self._kept.pop((room.cookie, address), None)) is not None:
                room.listeners[address] = kept
                self._tell(room.listener(address), [kept])
            elif address.host == "::1" and got.errno in _ABSENT:
                pass  # the container has no IPv6, and who calls `localhost` there gets 127.0.0.1
            else:
                self._lack(room.room, f"{address.hostport}: {_explained(got, address)}")

    def shown(self, cookie: int, listen: str, sock: socket.socket) -> None:
        """A proxy has this listener. Takes the socket, its duplicate, over: it is used where it is wanted and this
        process has none, or will be as long as not all containers have been seen (`complete`).
        """
        try:
            address = ip_port(listen)
        except ValueError:
            return sock.close()
        for each in self:
            if each.cookie == cookie and address in each.room.listeners and address not in each.listeners:
                each.listeners[address] = sock
                return
        if self._kept is None or (cookie, address) in self._kept:
            sock.close()
        else:
            self._kept[cookie, address] = sock

    def complete(self) -> None:
        """All containers that there are have been seen: what proxies have shown before, and nobody wants, is closed.
        Idempotent.
        """
        kept, self._kept = self._kept or {}, None
        for sock in kept.values():
            sock.close()

    async def stock(self, cookie: int, family: int, count: int) -> tuple[Stock, list[socket.socket]]:
        """Sockets of a namespace, which the caller closes; none if it is gone, or cannot be entered."""
        made: list[socket.socket] = []
        for each in self:
            if each.cookie == cookie:
                count = min(count, MOST_STOCK)
                try:
                    work = partial(namespaces.sockets, family, count)
                    with trio.CancelScope(shield=True):
                        own, made = await trio.to_thread.run_sync(namespaces.visit, each.path, work)
                except (NoNamespace, OSError) as error:
                    log.warning("no sockets for a container", container=each.room.name, error=str(error))
                    break
                if own != cookie:  # the file is another container's by now
                    for sock in made:
                        sock.close()
                    made = []
                break
        return Stock(cookie, family), made

    def close(self) -> None:
        """Close all listeners of this process; the proxies keep theirs."""
        self.complete()
        for each in self:
            each.close()
        self._open.clear()


def _explained(error: OSError, address: TcpAddress) -> str:
    if error.errno == errno.EADDRINUSE:
        other = f"127.77.0.2:{address.port}" if address.host == "127.0.0.1" else "another address"
        return f"a program in the container listens there, or on all addresses; use {other}, or have it listen on one"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE"
    return error.strerror or str(error)
