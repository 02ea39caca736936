"""Last words: what one end of a stream had said before it was gone reaches the other end, and then that is closed.

Closing at once would lose bytes. A TCP socket that is reset, or closed while bytes lie unread in it, throws away what
the reader's kernel has not taken; this proxy may hold more, which the socket did not take. (AF_UNIX loses nothing that
was sent: it lies in the reader's socket.) So the socket is kept until the reader has everything.

The reader may be writing meanwhile, and not read before it is done. Nobody wants its bytes any more: a Unix application
is told so by an error (EPIPE). TCP has no word for it, so the bytes are read and dropped.
"""

from __future__ import annotations

import fcntl
import select
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from select import EPOLLERR, EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Protocol

import structlog

from proxy.errors import CloseReason
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, disarm_reset
from proxy.pump.streamobserver import StreamObserver

log = structlog.get_logger()

PATIENCE = 60.0
"""Seconds in which a reader must take something of the last words of a stream that is aborted. Long, because a slow
reader's progress shows in steps: its kernel opens the window by a part of the buffer, a peer grants half of the credit.
"""
LONGEST = 600.0
"""Seconds after which a stream is aborted in any case, whatever its reader has not taken."""
FIRST_LOOK, LOOK = 0.002, 1.0
"""Seconds after which to look, first, whether a TCP reader has everything, which nothing tells; then after twice as
long, and so on up to LOOK. An acknowledgement mostly comes at once, and is delayed by 40 ms at most."""
MOST_DROPPED = 64 << 20
"""Bytes that are read from a TCP application and dropped. It is held back then: who sends so much and reads nothing
might do so for ever."""
_UNIX = int(socket.AF_UNIX)
_scratch = bytearray(64 * 1024)


def told_already(observer: StreamObserver, peer: str, reason: CloseReason) -> None:
    """What is told of last words (`on_end`) when the lane's observer knows of the end, which was a clean one."""
    if reason is CloseReason.UNREAD:
        service, direction = observer.service, observer.direction
        kind = (service, direction, peer)
        log.warning("last words unread", kind=kind, service=service, direction=direction, peer=peer)


def untaken(sock: LocalSocket) -> int:
    """Bytes sent that the kernel at the other end has not acknowledged (TCP), or that nobody has read (AF_UNIX, with
    what they take in memory). SIOCOUTQ in tcp(7), unix(7).
    """
    return _ask(sock, termios.TIOCOUTQ)


def stop_hearing(sock: LocalSocket) -> None:
    """Tell the application behind a Unix socket, which may be writing, that nobody reads it: it gets EPIPE.

    What lies in the socket is dropped, or a writer that waits for room would not wake up; but for one byte, so that the
    end, when it comes, is ECONNRESET for it, as without a proxy. Nothing raises: where the application is gone, a write
    shows it.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
        while (unread := _ask(sock, termios.FIONREAD)) > 1:
            sock.recv_into(_scratch, min(unread - 1, len(_scratch)))


def is_gone(sock: LocalSocket) -> bool:
    """Whether an application that takes no more bytes says nothing more either. Over AF_UNIX it may have shut down
    reading alone, and still write; over TCP that is not seen, and a failed write means that the connection is over.
    """
    if sock.family != _UNIX:
        return True
    look = select.poll()
    look.register(sock.fileno(), 0)
    return bool(look.poll(0))


def _ask(sock: LocalSocket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock.fileno(), what, bytes(4)), sys.byteorder)


class Budget(Protocol):
    """What kept bytes are given back to: `MemoryBudget` or `PeerBudget`."""

    def give(self, size: int) -> None:
        """Give back `size` bytes."""


class Patience:
    """How long somebody waits for a reader.

    Args:
        taken: what the reader has taken so far, bytes from any origin.
    """

    __slots__ = ("_began", "_since", "_taken")

    def __init__(self, taken: int) -> None:
        self._taken = taken
        self._began = self._since = monotonic()

    def pause(self) -> None:
        """It is not the reader that is waited for: count from now."""
        self._began = self._since = monotonic()

    def over(self, taken: int) -> bool:
        """Whether it has taken nothing more for PATIENCE seconds, or is not done after LONGEST."""
        now = monotonic()
        if taken > self._taken:
            self._taken, self._since = taken, now
        return now - self._since >= PATIENCE or now - self._began >= LONGEST


class LastWords:
    """Delivers the last words of a stream to the reader behind a local socket, and closes that, which it owns.

    Args:
        sock: is registered with the pump.
        reason: FINISHED: close it cleanly behind them, however long the reader takes, unless it goes on writing.
            Otherwise reset it, where its kind can express that, after PATIENCE and LONGEST at the latest.
        pending: bytes that the socket has not taken yet, which `budget` has counted.
        on_end: called exactly once when the socket is closed, or will be when the turn ends; with `reason`, or ABORTED
            if the reader was gone, or UNREAD if it was too slow.
    """

    __slots__ = (
        "_budget",
        "_dropped",
        "_look_after",
        "_mask",
        "_on_end",
        "_over",
        "_patience",
        "_pending",
        "_pump",
        "_reading",
        "_reason",
        "_shut",
        "_tcp",
        "sock",
    )

    def __init__(
        self,
        pump: Pump,
        sock: LocalSocket,
        reason: CloseReason,
        pending: bytes | bytearray,
        budget: Budget,
        on_end: Callable[[CloseReason], None],
    ) -> None:
        self.sock = sock
        self._pump, self._reason, self._on_end = pump, reason, on_end
        self._pending, self._budget = memoryview(pending), budget
        self._tcp = sock.family != _UNIX
        self._mask, self._dropped, self._look_after = -1, 0, FIRST_LOOK
        self._reading = self._tcp
        self._shut = reason is not CloseReason.FINISHED
        self._over = False
        self._patience = Patience(-self._left)

    def start(self) -> None:
        """Begin; may call `on_end` before it returns."""
        self._pump.hand_on(self.sock.fileno(), self)
        self.ready(0)
        if self._over:
            return
        if not self._tcp:
            stop_hearing(self.sock)
        self._pump.deadlines.add(self._look_after, self._look)

    @property
    def _left(self) -> int:
        return len(self._pending) + untaken(self.sock)

    def ready(self, mask: int) -> None:
        """Send, and drop what the application still sends (`Watcher.ready`)."""
        try:
            if self._pending:
                self._send()
            if mask & EPOLLIN:
                self._drop()
        except OSError:
            return self.end(CloseReason.ABORTED)
        if mask & EPOLLERR:
            return self.end(CloseReason.ABORTED)
        if not self._pending:
            if self._tcp and not self._shut:
                # Its end first: where bytes are unread, close() would send a reset instead of it.
                self._shut = True
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    return self.end(CloseReason.ABORTED)
            if not (self._tcp and untaken(self.sock)):
                return self.end(self._reason)
        self._update()

    def crashed(self) -> None:
        """Reset the connection: there is a bug (`Watcher.crashed`)."""
        self.end(CloseReason.ABORTED)

    def abandoned(self) -> None:
        """The pump ends: the kernel does what it can (`Watcher.abandoned`)."""
        self.end(CloseReason.STOPPED if self._pending else self._reason)

    def _send(self) -> None:
        try:
            sent = self.sock.send(self._pending)
        except BlockingIOError:
            return
        self._budget.give(sent)
        self._pending = self._pending[sent:]

    def _drop(self) -> None:
        try:
            length = self.sock.recv_into(_scratch)
        except BlockingIOError:
            return
        self._dropped += length
        self._reading = length > 0 and self._dropped < MOST_DROPPED

    def _update(self) -> None:
        mask = (EPOLLIN if self._reading else 0) | (EPOLLOUT if self._pending else 0)
        if mask != self._mask:
            self._mask = mask
            self._pump.interest(self.sock.fileno(), mask)

    def _look(self) -> None:
        """Look whether the reader has everything, and whether it still takes something."""
        if not self._over:
            self.ready(0)
        if self._over:
            return
        bounded = self._dropped or self._reason is not CloseReason.FINISHED
        if self._patience.over(-self._left) and bounded:
            return self.end(CloseReason.UNREAD)
        self._look_after = min(2 * self._look_after, LOOK)
        self._pump.deadlines.add(self._look_after, self._look)

    def end(self, reason: CloseReason) -> None:
        """Close the socket now: cleanly if `reason` is FINISHED, else as a reset. Idempotent."""
        if self._over:
            return
        self._over = True
        self._budget.give(len(self._pending))
        self._pending = self._pending[:0]
        if reason is CloseReason.FINISHED:
            disarm_reset(self.sock)
        self._pump.close(self.sock)
        self._on_end(reason)
