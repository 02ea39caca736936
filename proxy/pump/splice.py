"""Caller and service on the same host: bytes go from socket to socket, without frames.

Each direction has one small buffer. While it holds bytes, the socket that they came from is not read: a slow reader
holds back its writer and nobody else, and a direction never buffers more than one read (CHUNK).

A failed write ends its direction only. What the application that takes no more had written is read to its end, and
given to the other one (`LastWords`); then both are closed as aborted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic

from proxy.errors import CloseReason
from proxy.pump.lastwords import LOOK, LastWords, Patience, is_gone, stop_hearing, untaken
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, disarm_reset
from proxy.pump.stalls import Stalls, StallSeconds
from proxy.pump.streamtiming import StreamTiming

CHUNK = 64 * 1024
"""Bytes moved per turn and direction."""
_scratch = bytearray(CHUNK)
_scratch_view = memoryview(_scratch)
_UNIX = int(socket.AF_UNIX)


class SpliceEnd:
    """One of the two sockets, and the bytes on their way *to* it.

    Attributes:
        pending: bytes that the socket has not taken yet.
        ended: everything that the application wrote was read.
        hasty: it had closed, and the other one had said nothing. doubted: over TCP it may also have only ended what it
            says; the end of the splice says which (`hasty`).
        shut: the socket was shut down for writing.
        deaf: the application takes no more bytes: a write has failed, or would.
        first_at: when its first bytes were read, seconds (monotonic); None: there were none yet.
        received: bytes read from it; counted: those of them that whoever counts them has counted already.
        stalls: how long bytes have waited for it; None: they never did. timing: is told of the first bytes read.
        unheard: the socket is not read any more, because the other one is deaf and this one's application knows it.
    """

    __slots__ = (
        "counted",
        "deaf",
        "doubted",
        "ended",
        "first_at",
        "hasty",
        "mask",
        "other",
        "pending",
        "received",
        "shut",
        "sock",
        "splice",
        "stalls",
        "timing",
        "unheard",
    )

    def __init__(self, splice: Splice, sock: LocalSocket) -> None:
        self.splice = splice
        self.sock = sock
        self.other: SpliceEnd
        self.pending = b""
        self.mask = EPOLLIN
        self.ended = self.hasty = self.doubted = self.shut = self.deaf = self.unheard = False
        self.received = self.counted = 0
        self.first_at: float | None = None
        self.stalls: Stalls | None = None
        self.timing: StreamTiming | None = None

    def update(self) -> None:
        """Tell the epoll what to wait for: input while nothing is pending for the other socket, room for output while
        something is pending for this one.
        """
        reading = not (self.ended or self.unheard or self.other.pending)
        mask = (EPOLLIN if reading else 0) | (EPOLLOUT if self.pending else 0)
        if mask != self.mask:
            if (mask ^ self.mask) & EPOLLOUT:
                self._held_back(mask & EPOLLOUT != 0)
            self.mask = mask
            self.splice.pump.interest(self.sock.fileno(), mask)

    def _held_back(self, begins: bool) -> None:
        """The application does not take what is there, or does again."""
        stalls = self.stalls = self.stalls or Stalls()
        (stalls.from_delivering if begins else stalls.delivering)(monotonic())

    def ready(self, mask: int) -> None:
        """The epoll reports events on this socket (Watcher)."""
        if mask & EPOLLOUT and self.pending:
            self.write(memoryview(self.pending))
        if self.mask & EPOLLIN and mask & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self.read(mask & EPOLLHUP != 0)
        elif self.unheard and mask & (EPOLLHUP | EPOLLERR):
            self.gone()
        elif mask & EPOLLERR and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.deafen()
        self.splice.settle()

    def crashed(self) -> None:
        """An unexpected exception was raised and logged: end as ABORTED (Watcher)."""
        self.splice.end(CloseReason.ABORTED)

    def abandoned(self) -> None:
        """Never called: whoever made the splice ends it before the pump ends (Watcher)."""

    def read(self, hung: bool) -> None:
        """Receive once and write that to the other socket; note an end of input. (The kernel reports an abort only when
        all that the application had written was read.)

        Args:
            hung: the application has closed its socket.
        """
        try:
            length = self.sock.recv_into(_scratch)
        except BlockingIOError:
            return
        except OSError:
            return self.gone()
        if length:
            if self.first_at is None:
                self.first_at = monotonic()
                if self.timing is not None:
                    self.timing.first_byte(self.first_at)
            self.received += length
            self.other.write(_scratch_view[:length])
        else:
            self._finish(hung)

    def _finish(self, closed: bool) -> None:
        """Everything that the application had to say was read."""
        self.ended = True
        if self.other.received == 0:
            self.hasty, self.doubted = closed, not closed and self.sock.family != _UNIX

    def judge(self, finished: bool) -> None:
        """The splice is about to end: has the application waited for what it was told, if that is in doubt?"""
        if self.doubted:
            was_reset = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
            self.hasty = self.deaf or was_reset or not (finished and self.other.received)

    def write(self, data: memoryview) -> None:
        """Send `data` and make what the socket does not take the pending bytes; drop it if the application takes no
        more. If the memory budget has no room the bytes are dropped, and `Splice.settle` ends the splice.
        """
        if self.deaf:
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.deafen()
        if sent == len(data) and not self.pending:
            return
        budget = self.splice.pump.budget
        budget.give(len(self.pending))
        self.pending = bytes(data[sent:])
        if not budget.take(len(self.pending)):
            self.pending = b""
            self.splice.over_budget = True

    def deafen(self) -> None:
        """The application takes no more bytes. The other one's Unix socket says so to whoever writes to it; what a TCP
        application still writes is read and dropped.
        """
        if self.deaf:
            return
        self.deaf = True
        self.drop_pending()
        if self.other.sock.family == _UNIX:
            self.other.unheard = True
            stop_hearing(self.other.sock)
        self.splice.pump.deadlines.add(LOOK, partial(self.splice.wait_for_reader, self.other, Patience(0)))

    def gone(self) -> None:
        """The application has closed: it takes no more bytes, and everything that it had to say was read."""
        self.deaf = True
        self._finish(True)
        self.drop_pending()

    def drop_pending(self) -> None:
        """Give what waits for the socket back to the budget."""
        self.splice.pump.budget.give(len(self.pending))
        self.pending = b""


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
        self._last_words: LastWords | None = None
        self.caller, self.service = SpliceEnd(self, caller), SpliceEnd(self, service)
        self.caller.other, self.service.other = self.service, self.caller

    def start(self) -> None:
        """Put both sockets into the pump."""
        self.pump.watch(self.caller.sock.fileno(), self.caller, EPOLLIN)
        self.pump.watch(self.service.sock.fileno(), self.service, EPOLLIN)

    def stalled(self, now: float) -> StallSeconds:
        """How long it was held back by now. Whoever does not read is an application of this host."""
        return StallSeconds(0.0, 0.0, sum(end.stalls.so_far(now).reader for end in self.ends if end.stalls is not None))

    def held(self, now: float) -> tuple[str, float] | None:
        """As `Stalls.held`."""
        found = [held for end in self.ends if end.stalls is not None and (held := end.stalls.held(now)) is not None]
        return max(found, key=lambda each: each[1], default=None)

    @property
    def ends(self) -> tuple[SpliceEnd, SpliceEnd]:
        """Both."""
        return self.caller, self.service

    def settle(self) -> None:
        """Shut a socket down for writing once the other one's input has ended and was sent; update what the epoll waits
        for; end as FINISHED when both are shut. When one is deaf and has said everything, leave the other one to its
        last words.
        """
        if self.done:
            return
        if self.over_budget:
            return self.end(CloseReason.OVER_BUDGET)
        ends = self.caller, self.service
        if self.caller.deaf or self.service.deaf:
            for end in ends:
                if end.deaf and end.ended:
                    return self._leave_to_last_words(end)
        for end in ends:
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

    def wait_for_reader(self, end: SpliceEnd, patience: Patience) -> None:
        """Abort if the application at `end` does not take what the other one, which is deaf, had said."""
        if self.done:
            return
        if not (end.pending and is_gone(end.other.sock)):
            patience.pause()
        if patience.over(end.other.received - len(end.pending) - untaken(end.sock)):
            return self.end(CloseReason.UNREAD)
        self.pump.deadlines.add(LOOK, partial(self.wait_for_reader, end, patience))

    def _leave_to_last_words(self, gone: SpliceEnd) -> None:
        """Close the end whose application is gone, and the other one when it has taken all."""
        end = gone.other
        if end.deaf:
            return self.end(CloseReason.ABORTED)
        self.done = True
        self.caller.judge(gone is not self.caller)
        gone.drop_pending()
        self.pump.close(gone.sock)
        pending, end.pending = end.pending, b""
        self._last_words = LastWords(self.pump, end.sock, CloseReason.ABORTED, pending, self.pump.budget, self._on_end)
        self._last_words.start()

    def end(self, reason: CloseReason) -> None:
        """Close both sockets; unless `reason` is FINISHED, as a reset where their kind can express one. Idempotent."""
        if self._last_words is not None:
            return self._last_words.end(reason)
        if self.done:
            return
        self.done = True
        self.caller.judge(reason is CloseReason.FINISHED)
        for end in (self.caller, self.service):
            end.drop_pending()
            if reason is CloseReason.FINISHED:
                disarm_reset(end.sock)
            self.pump.close(end.sock)
        self._on_end(reason)
