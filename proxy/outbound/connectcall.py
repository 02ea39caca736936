"""One call through the CONNECT socket: as any other, but that its caller is told whether it has been delivered.

The answer is written in the moment in which the service has the connection, so it comes before the first byte of that.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Protocol

from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.mux.frames import Open
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.connecthead import ConnectHead
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket
from proxy.pump.splice import Splice

_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class ConnectCallKeeper(Protocol):
    """What such calls come from (`connectsocket.ConnectSocket`)."""

    def part(self, sock: LocalSocket) -> None:
        """Close the socket of a caller that has been answered and shut out, once it has read that."""

    def ended(self) -> None:
        """A call has ended."""


class ConnectCall(Call):
    """See the module's text.

    Args:
        head: of the caller's request, not answered yet; rest: what came behind it.
    """

    __slots__ = ("_carried", "_head", "_keeper")

    def __init__(
        self,
        context: CallContext[Call],
        request: Open,
        sock: LocalSocket,
        tcp: bool,
        head: ConnectHead,
        rest: bytes,
        keeper: ConnectCallKeeper,
    ) -> None:
        super().__init__(context, request, sock, tcp)
        self._early = rest
        self._head, self._keeper = head, keeper
        self._carried: LocalSocket | None = sock

    def _delivered_here(self, splice: Splice) -> None:
        self._establish(splice.caller.sock)
        rest, self._early = self._early, b""
        if rest and not splice.done:
            splice.service.write(memoryview(rest))
            splice.settle()

    def lane_opened(self, lane: Lane) -> None:
        """The peer has delivered the stream: tell the caller (StreamObserver)."""
        super().lane_opened(lane)
        if lane.sock is not None:
            self._establish(lane.sock)

    def _establish(self, sock: LocalSocket) -> None:
        self._carried = None
        with suppress(OSError):  # it is gone, which its socket says again when that is read
            sock.send(self._head.established())

    def _turn_away(self, sock: LocalSocket, reason: CloseReason) -> None:
        if self.lane is not None:
            self._context.pump.release(sock)
        self._carried = None
        self._refuse(sock, reason)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Of a stream whose caller still waits for the answer, say why there is none (StreamObserver)."""
        sock, self._carried = self._carried, None
        # The lane has closed it, which comes into force when the turn ends.
        if sock is not None and sock.fileno() >= 0 and reason not in OF_APPLICATIONS:
            with suppress(OSError):
                self._context.pump.release(sock)
                self._refuse(LocalSocket(sock.family, _STREAM, 0, os.dup(sock.fileno())), reason)
        super().lane_ended(lane, reason)

    def _refuse(self, sock: LocalSocket, reason: CloseReason) -> None:
        with suppress(OSError):
            sock.send(self._head.refused(self.service, reason))
            sock.shutdown(socket.SHUT_WR)
        self._keeper.part(sock)

    def _over(self, reason: CloseReason, sent: int, received: int, peer: str | None) -> None:
        super()._over(reason, sent, received, peer)
        self._keeper.ended()
