"""The sockets at which the proxy itself is asked, commanded and taken over, for as long as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from control.base.system.keptsocket import LOOK, KeptSocket, SocketKeeper
from proxy.links.acceptgate import AcceptGate


class OwnSocket:
    """One of them, with what accepts there.

    Args:
        kind: what it is for (`inheritance`).

    Attributes:
        kept: the socket; its maker closes it.
        gate: through which connections are accepted; listeners: where: one list for as long as this lives, empty until
            `use` is called.
    """

    def __init__(self, kind: str, kept: KeptSocket) -> None:
        self.kind, self.kept = kind, kept
        self.gate = AcceptGate()
        self.listeners: list[trio.SocketListener] = []

    def use(self) -> None:
        """The socket is there: until then something else may have stood in for it (`receiver`)."""
        self.listeners[:] = [trio.SocketListener(trio.socket.from_stdlib_socket(self.kept.bound.socket))]

    def restore(self) -> bool:
        """As `KeptSocket.restore`, and accept at the new socket. Returns True. Raises StartError."""
        lost, is_open = self.kept.restore(), self.gate.is_open
        self.gate.close()  # before its socket is: nobody may wait at a closed one
        lost.close()
        self.use()
        if is_open:
            self.gate.open()
        return True


class Reserving(Protocol):
    """Says whether a handover has begun, during which sockets must be neither opened nor closed."""

    reserved: bool
    left: bool


async def keep(sockets: Sequence[OwnSocket], keeper: SocketKeeper, handover: Reserving) -> None:
    """Look every LOOK seconds whether the sockets' files are there, and bind those again that somebody has removed,
    until cancelled.
    """
    while True:
        await trio.sleep(LOOK)
        if not (handover.reserved or handover.left):
            gone = [each for each in sockets if not each.kept.bound.in_place]
            keeper.mend({each.kept.address: each.restore for each in gone})
