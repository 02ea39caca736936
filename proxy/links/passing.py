"""Connections that one process of a host accepts and another one, whose place it has taken, is meant to have.

Both share the links' port after a takeover, and only the later one accepts there. What a dialler means for the earlier
one (`links.resumemark`), to resume a session with it, is passed on as it was accepted, with every byte still in it.
"""

from __future__ import annotations

import socket
from typing import Protocol

import trio

MOST = 64
"""Connections, at most, that wait for the handshake with this process to begin: it takes them at once, so that more
than a few are a flood."""


class EarlierProcesses(Protocol):
    """The processes of this host that still let their streams finish, as the one sees them that accepts."""

    @property
    def instances(self) -> tuple[str, ...]:
        """Of those to which connections can be passed."""

    def pass_on(self, instance: str, connection: socket.socket | trio.socket.SocketType) -> bool:
        """Give that process the connection; the caller closes its own descriptor. False: it is not there (any more).
        Raises HandshakeError, for the dialler to come again, if it does not take the connection now.
        """


class NoEarlierProcess:
    """There is none."""

    instances: tuple[str, ...] = ()

    def pass_on(self, instance: str, connection: socket.socket | trio.socket.SocketType) -> bool:
        """As `EarlierProcesses.pass_on`."""
        return False


class PassedLinks:
    """Connections that this process is given by the one that accepts, until `links.accept` takes them. Owns those that
    it has not.
    """

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[socket.socket](MOST)

    def put(self, connection: socket.socket) -> None:
        """Take over a connection. It is closed, and its dialler comes again, if too many wait. Raises nothing."""
        try:
            self._in.send_nowait(connection)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            connection.close()

    async def take(self) -> socket.socket:
        """The next one, which the caller owns. Waits for it, for ever after `close`."""
        try:
            return await self._out.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            await trio.sleep_forever()
            raise

    def close(self) -> None:
        """Close those that nobody has taken. Idempotent."""
        self._in.close()
        try:
            while True:
                self._out.receive_nowait().close()
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            self._out.close()
