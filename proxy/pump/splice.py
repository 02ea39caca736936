"""Caller and service on the same host: bytes go from socket to socket, without frames.

Each direction has one small buffer. While it holds bytes, the socket that they came from is not read: a slow reader
holds back its writer and nobody else, and a direction never buffers more than one read (CHUNK).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic

from proxy.errors import CloseReason
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, disarm_reset

CHUNK = 64 * 1024
"""Bytes moved per turn and direction."""
_scratch = bytearray(CHUNK)
_scratch_view = memoryview(_scratch)


class SpliceEnd:
    """One of the two sockets, and the bytes on their way *to* it."""

    __slots__ = ("ended", "mask", "other", "pending", "received", "shut", "sock", "splice")

    def __init__(self, splice: Splice, sock: LocalSocket) -> None:
        self.splice = splice
        self.sock = sock
        self.other: SpliceEnd
        self.pending = b""
        self.mask = EPOLLIN
        self.ended = self.shut = False
        self.received = 0

    def update(self) -> None:
        """Tell the epoll what to wait for: input while nothing is pending for the other socket, room for output while
        something is pending for this one.
        """
        mask = (EPOLLIN if not self.ended and not self.other.pending else 0) | (EPOLLOUT if self.pending else 0)
        if mask != self.mask:
            self.mask = mask
            self.splice.pump.interest(self.sock.fileno(), mask)

    def ready(self, mask: int) -> None:
        """The epoll reports events on this socket (Watcher)."""
        try:
            if mask & EPOLLOUT and self.pending:
                self.write(memoryview(self.pending))
            if self.mask & EPOLLIN and mask & (EPOLLIN | EPOLLHUP | EPOLLERR):
                self.read()
            elif mask & EPOLLERR and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            return self.splice.end(CloseReason.ABORTED)
        self.splice.settle()

    def crashed(self) -> None:
        """An unexpected exception was raised and logged: end as ABORTED (Watcher)."""
        self.splice.end(CloseReason.ABORTED)

    def abandoned(self) -> None:
        """Never called: whoever made the splice ends it before the pump ends (Watcher)."""

    def read(self) -> None:
        """Receive once and write that to the other socket; note an end of input. Raises OSError."""
        length = self.sock.recv_into(_scratch)
        if length:
            self.received += length
            self.other.write(_scratch_view[:length])
        else:
            self.ended = True

    def write(self, data: memoryview) -> None:
        """Send `data` and make what the socket does not take the pending bytes. Raises OSError but not
        BlockingIOError; if the memory budget has no room the bytes are dropped, and `Splice.settle` ends the splice.
        """
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        budget = self.splice.pump.budget
        budget.give(len(self.pending))
        self.pending = bytes(data[sent:])
        if not budget.take(len(self.pending)):
            self.pending = b""
            self.splice.over_budget = True


class Splice:
    """Joins two connected, non-blocking sockets. Owns both, and closes them at the end.

    Args:
        on_end: called exactly once, with the close reason.
    """

    def __init__(
        self, pump: Pump, caller: LocalSocket, service: LocalSocket, on_end: Callable[[CloseReason], None]
    ) -> None:
        self.pump = pump
        self.since = monotonic()
        self.over_budget = self.done = False
        self._on_end = on_end
        self.caller, self.service = SpliceEnd(self, caller), SpliceEnd(self, service)
        self.caller.other, self.service.other = self.service, self.caller

    def start(self) -> None:
        """Put both sockets into the pump."""
        self.pump.watch(self.caller.sock.fileno(), self.caller, EPOLLIN)
        self.pump.watch(self.service.sock.fileno(), self.service, EPOLLIN)

    def settle(self) -> None:
        """Shut a socket down for writing once the other one's input has ended and was sent; update what the epoll waits
        for; end as FINISHED when both are shut.
        """
        if self.over_budget:
            return self.end(CloseReason.OVER_BUDGET)
        for end in (self.caller, self.service):
            if end.other.ended and not end.pending and not end.shut:
                end.shut = True
                try:
                    end.sock.shutdown(socket.SHUT_WR)
                except OSError:  # closed already by its application; the next read says how
                    pass
        if self.caller.shut and self.service.shut:
            return self.end(CloseReason.FINISHED)
        self.caller.update()
        self.service.update()

    def end(self, reason: CloseReason) -> None:
        """Close both sockets; unless `reason` is FINISHED, as a reset where their kind can express one. Idempotent."""
        if self.done:
            return
        self.done = True
        for end in (self.caller, self.service):
            self.pump.budget.give(len(end.pending))
            end.pending = b""
            if reason is CloseReason.FINISHED:
                disarm_reset(end.sock)
            self.pump.close(end.sock)
        self._on_end(reason)
