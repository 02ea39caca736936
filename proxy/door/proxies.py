"""The proxies at the door: mostly one; while one takes another's place, both."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec
import structlog
import trio

from control.base.system.peercred import credentials_of
from proxy.door.channel import Broken, Channel, attend_all
from proxy.door.directories import Directories
from proxy.door.kept import KeptSockets
from proxy.door.messages import (
    PROTOCOL,
    SOCKET,
    Drop,
    Ended,
    Fetch,
    FromProxy,
    Held,
    Hello,
    Keep,
    Kept,
    Listed,
    Shown,
    Want,
)
from proxy.door.rooms import Rooms

__all__ = ["Proxies", "answers"]

log = structlog.get_logger()

FIRST = 5.0
"""Seconds that a proxy has for its first words."""


class ProxyConnection:
    """One proxy.

    Attributes:
        heard: it has said something.
        told: it was told what there is, and hears what changes.
    """

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.channel: Channel[FromProxy] = Channel(sock, FromProxy)
        self.pid, self.heard, self.told = pid, False, False

    def say(self, message: msgspec.Struct, sockets: list[socket.socket]) -> None:
        """As `Channel.say`; a proxy that cannot be told is cut off, as it would be left behind: it comes again."""
        try:
            self.channel.say(message, sockets)
        except OSError as error:
            log.error("a proxy cannot be told", pid=self.pid, error=error.strerror)
            self.channel.close()


class Proxies:
    """All of them.

    Args:
        uid: of the user that they run as; root may be one, too.
        changed: called when a proxy has shown listeners.
    """

    def __init__(self, uid: int, changed: Callable[[], None]) -> None:
        self._uid, self._changed = uid, changed
        self._connections: dict[ProxyConnection, None] = {}
        self._listed = trio.Event()
        self.kept = KeptSockets()
        self.rooms: Rooms | None = None
        self.directories: Directories | None = None

    @property
    def told(self) -> bool:
        """Whether any proxy has what there is."""
        return any(connection.told for connection in self._connections)

    def tell(self, message: msgspec.Struct, sockets: list[socket.socket]) -> None:
        """Say something to every proxy that was told what there is already (`rooms.Tell`)."""
        for connection in self._connections:
            if connection.told:
                connection.say(message, sockets)

    def listed(self) -> None:
        """What is open is what should be: proxies may close all else from now on. Idempotent."""
        self._listed.set()

    async def serve(self, listening: socket.socket) -> None:
        """Accept proxies until cancelled."""
        await attend_all(listening, "a proxy", self._attend)

    async def _attend(self, sock: socket.socket) -> None:
        """One proxy, until it goes."""
        peer = credentials_of(sock)
        if peer.uid not in (self._uid, 0):
            log.warning("not a proxy", uid=peer.uid, pid=peer.pid, allowed=f"user {self._uid} (door.user), and root")
            return sock.close()
        connection = ProxyConnection(sock, peer.pid)
        self._connections[connection] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.channel.send)
                await self._hear(connection)
        except* Broken as group:
            # Who only looks whether the door is there (`answers`) says nothing.
            say = log.info if connection.heard else log.debug
            say("proxy gone", pid=peer.pid, why=str(group.exceptions[0]))
        finally:
            del self._connections[connection]
            connection.channel.close()

    async def _hear(self, connection: ProxyConnection) -> None:
        connection.say(Hello(), [])
        with trio.move_on_after(FIRST):
            await self._meet(connection)
        if not connection.told:
            raise Broken(f"it has not said within {FIRST:g} s what it has")
        log.info("proxy at the door", pid=connection.pid)
        while True:
            message, descriptors = await connection.channel.receive()
            if isinstance(message, Keep) and descriptors:
                self.kept.keep(message.name, socket.socket(fileno=descriptors.pop()))
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(message, Want):
                assert self.rooms is not None
                stock, sockets = await self.rooms.stock(message.namespace, message.family, message.count)
                connection.say(stock, sockets)
                for sock in sockets:
                    sock.close()
            elif isinstance(message, Drop):
                self.kept.drop(message.name)
            elif isinstance(message, Ended):
                log.debug("proxy has closed what a container had", pid=connection.pid)
            elif not isinstance(message, Keep):
                raise Broken(f"{type(message).__name__} is not said here")

    async def _meet(self, connection: ProxyConnection) -> None:
        rooms = self.rooms
        assert rooms is not None
        held: set[tuple[int, str]] = set()
        while True:
            message, descriptors = await connection.channel.receive()
            connection.heard = True
            if isinstance(message, Hello) and message.protocol != PROTOCOL:
                raise Broken(f"it speaks protocol {message.protocol}, and this door {PROTOCOL}: use one version")
            if isinstance(message, Held) and len(descriptors) == 1:
                held.add((message.namespace, message.listen))
                rooms.shown(message.namespace, message.listen, socket.socket(fileno=descriptors[0]))
            elif isinstance(message, Fetch):
                for name, sock in self.kept:
                    connection.say(Kept(name), [sock])
                connection.say(Listed(), [])
            elif isinstance(message, Shown):
                break
        self._changed()
        await self._listed.wait()
        # Nothing awaits from here on: what changes afterwards is said to it, too.
        assert self.directories is not None
        for sockets in self.directories:
            connection.say(sockets, [])
        for room in rooms:
            for address, sock in room.listeners.items():
                listener = room.listener(address)
                connection.say(listener, [] if (listener.namespace, listener.listen) in held else [sock])
            for service in room.offers:
                connection.say(room.offer(service), [])
        connection.say(Listed(), [])
        connection.told = True


def answers(directory: str) -> bool:
    """Whether a door is there whose loop turns: it says the first word. Blocks, for FIRST seconds at most."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(FIRST)
        try:
            sock.connect(f"{directory}/{SOCKET}")
            return bool(sock.recv(1 << 16))
        except OSError:
            return False
