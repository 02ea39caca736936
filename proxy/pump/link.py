"""A link: the one writer and the one reader of its socket, with the session that it carries.

The link is always read, also while it cannot be written: credit bounds what may arrive, and a proxy that stops reading
because it cannot write deadlocks with a peer that does the same. A write that fails, or a frame that breaks the
specification, dooms the link: it ends when the turn does, and `reason` says why. Its session ends with it or is
suspended.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from select import EPOLLIN, EPOLLOUT
from time import monotonic_ns

import trio

from control.base.reading.addresses import TcpAddress
from proxy.core.syscalls import now, recv, send
from proxy.errors import CloseReason, ProtocolError
from proxy.mux.frames import HEADER_SIZE, MAX_DATA
from proxy.mux.replay import Flusher
from proxy.pump.decayingaverage import DecayingAverage
from proxy.pump.lane import BULK_MARK
from proxy.pump.loop import Pump
from proxy.pump.options import retransmits, silence
from proxy.pump.pace import SLOW_FRAMES
from proxy.pump.session import LaneSession
from proxy.pump.turn import deliver
from proxy.pump.wire import Wire

IN_BUFFER = 2 * (HEADER_SIZE + MAX_DATA)
"""Bytes: two DATA frames of the largest size. Small messages fill it with at most ~2,000 in a turn."""

UNREAD = 64
"""Reads into the in-buffer, at most, of what a link that ends has not read: enough for all that the kernel keeps
(6 MiB)."""

LOST = frozenset({CloseReason.LINK_LOST, CloseReason.PEER_TIMEOUT})
"""Reasons that mean that the connection broke, not that a side closed it: a session may survive these."""

QUEUEING_MEMORY = 1.0
"""Time constant of `Link.queueing`, seconds: a wait this long ago counts for a third. A queue that lasts less than a
tenth of it is a burst that the kernel's buffer did not take, and another link would come too late."""


class Link(Flusher):
    """Reads and writes one TCP connection in the pump. Owns `sock`, which is connected, non-blocking and past the
    handshake, and closes it; carries `session` from `start` on.

    Args:
        wire: what to read and write through; None: `sock` itself.

    Attributes:
        congested: whether bytes wait because the socket takes no more.
        ended: set when the socket is closed, or will be when the turn ends; `reason` and `detail` then say why. The
            session has ended, and the observers of all its streams have been told, or it is suspended.
        heard: how many reads brought bytes; heard_at: when the last one did, seconds (monotonic).
        rtt: round-trip time of the last ping, seconds; None before the first answer.
        serial: of the certificate that the peer showed, in hex; empty without TLS.
    """

    def __init__(self, pump: Pump, sock: socket.socket, session: LaneSession, *, wire: Wire | None = None) -> None:
        self.pump, self.session = pump, session
        self.name, self.peer, self.dialled, self.budget = session.name, session.peer, session.dialled, session.budget
        self.ended = trio.Event()
        self.reason, self.detail = CloseReason.FINISHED, ""
        self.since = self.heard_at = now()
        self.heard = 0
        self.rtt: float | None = None
        near, far = sock.getsockname()[:2], sock.getpeername()[:2]
        self.local_address, self.remote_address = TcpAddress(*near).hostport, TcpAddress(*far).hostport
        self._sock, self._fd = sock, sock.fileno()
        self._wire = wire
        self._buf = bytearray(IN_BUFFER)
        self._mem = memoryview(self._buf)
        self._filled = 0
        self._waiting = session.waiting
        self.congested = self._doomed = self._behind = False
        self._share = session.turn_share
        self._queueing = DecayingAverage(QUEUEING_MEMORY, self.since)
        self.serial = ""

    def start(self, leftover: bytes) -> None:
        """Register with the pump. `leftover`, bytes that came behind the handshake, is handled at once."""
        self.session.out.flusher = self
        self.session.carry_on(self)
        self.pump.watch(self._fd, self, EPOLLIN)
        self._mem[: len(leftover)] = leftover
        self._filled = len(leftover)
        self._guarded(lambda: self._handle(now()))
        self.pump.settle()

    # Reading

    def ready(self, mask: int) -> None:
        """Write and read as far as the socket is ready (`Watcher.ready`). Mask 0: handle the frames that the last turn
        left in the in-buffer (`TurnShare`).
        """
        if mask & EPOLLOUT and self.congested:
            self.congested = False
            self._queueing.set(False, now())
            self.pump.interest(self._fd, EPOLLIN)
            self.flush()
        if self._doomed:
            return
        try:
            if not mask:
                self._behind = False
                self._handle(now())
            elif mask & ~EPOLLOUT and not self._behind:
                self._receive()
        except ProtocolError as error:
            self.doom(CloseReason.PROTOCOL_ERROR, str(error))

    def crashed(self) -> None:
        """End the link: it has a bug (`Watcher.crashed`)."""
        self.doom(CloseReason.PROTOCOL_ERROR, "internal error")

    def abandoned(self) -> None:
        """Nothing to do: a link is ended by whoever started it, before the pump shuts down (`Watcher.abandoned`)."""

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ProtocolError as error:
            self.doom(CloseReason.PROTOCOL_ERROR, str(error))

    def _receive(self) -> None:
        try:
            count = self._recv()
        except BlockingIOError:
            return
        except OSError as error:
            return self.doom(CloseReason.LINK_LOST, error.strerror or str(error))
        if not count:
            return self.doom(CloseReason.LINK_LOST, "closed by the peer")
        self.heard += 1
        self.heard_at = now()
        self._filled += count
        self._handle(self.heard_at)

    def _recv(self) -> int:
        """As `Wire.recv_into`, to where the in-buffer is free."""
        if self._wire is not None:
            return self._wire.recv_into(self._mem[self._filled :])
        count = recv(self._fd, self._buf, self._filled, len(self._buf) - self._filled)
        return count if count >= 0 else _failed(-count)

    def _send(self) -> int:
        """As `Wire.send`, of what lies in the next slab with unsent bytes."""
        out = self.session.out
        if self._wire is not None:
            return self._wire.send(out.unsent_view())
        slab = out.unsent_slab()
        size = min(slab.end, out.base + out.pos) - out.sent
        count = send(self._fd, slab.buf, out.sent - slab.start, size)
        return count if count >= 0 else _failed(-count)

    def _handle(self, at: float) -> None:
        """Handle the whole frames in the in-buffer, as many as this turn may, or wait for the next one; it is `at`."""
        frames = self._share.take(self, at)
        if frames:
            self._deliver(frames)
        else:
            self._behind = True

    def _deliver(self, frames: int, ends: bool = False) -> None:
        """Handle whole frames, `frames` at most of those that are not plain DATA; move the rest to the beginning.

        Args:
            ends: the link ends, so the share of its peer's time is not asked for.
        """
        session, share, buf, end = self.session, self._share, self._buf, self._filled
        session.slow_left = frames
        pos = deliver(session, buf, 0, end)
        while (behind := not self._doomed and session.whole(buf, pos, end)) and (
            session.slow_left and (ends or share.more())
        ):
            pos = deliver(session, buf, pos, end)
        share.took(frames - session.slow_left)
        if behind:
            self._behind = True
            share.wait(self)
        session.received_bytes(pos)
        if pos:
            if pos < end:
                buf[: end - pos] = self._mem[pos:end]
            self._filled = end - pos
        if self._waiting:
            self._resume_waiting()

    # Writing

    def flush(self) -> None:
        """Send what the socket takes now. If that is not all, wait until it is writable (`congested`)."""
        out = self.session.out
        if out.overrun:
            return self.doom(CloseReason.PROTOCOL_ERROR, f"the peer left {out.unacked} bytes unacknowledged")
        while not (self.congested or self._doomed) and out.sent < out.base + out.pos:
            slab = out.unsent_slab()
            try:
                out.sent += self._send()
                out.sends += 1
            except BlockingIOError:
                pass
            except OSError as error:
                self.congested = True
                return self.pump.at_end(partial(self._read_last, error.strerror or str(error)))
            if out.sent < min(slab.end, out.base + out.pos):
                self.congested = True
                self._queueing.set(True, now())
                self.pump.interest(self._fd, EPOLLIN | EPOLLOUT)
        if self._waiting:
            self._resume_waiting()

    def _read_last(self, why: str) -> None:
        """End the link after a failed write. First read what the peer sent before: a GOAWAY may say why it closed."""
        for _ in range(UNREAD):
            if self._doomed:
                return
            before, behind = self.heard, self._behind
            self._behind = False
            self._guarded((lambda: self._deliver(SLOW_FRAMES, True)) if behind else (lambda: self._receive()))
            if self.heard == before and not behind:
                break
        self.doom(CloseReason.LINK_LOST, why)

    def _resume_waiting(self) -> None:
        if self.session.out.unsent <= BULK_MARK:
            waiting = list(self._waiting)
            self._waiting.clear()
            for lane in waiting:
                lane.guard(lane.resume)

    @property
    def usable(self) -> bool:
        """Whether a new stream may be opened on it now."""
        return not self._doomed and self.session.can_open

    @property
    def queueing(self) -> float:
        """The fraction, 0 to 1, of the last second or so in which bytes waited because the socket took no more."""
        return self._queueing.value(now())

    @property
    def bulk(self) -> bool:
        """Whether its pool puts bulk streams on it."""
        return self.session.bulk

    @property
    def answered(self) -> tuple[int, int]:
        """Bytes acknowledged, and the token of the last ping that was answered. A change of either shows that what this
        side sends arrives.
        """
        return self.session.out.acked, self.session.known_at

    @property
    def leaving(self) -> bool:
        """Whether no more streams may be opened on it, by either side; it ends when none is left."""
        return self.session.going_away

    @property
    def streams(self) -> int:
        """Streams open on it."""
        return len(self.session.streams)

    @property
    def retransmits(self) -> int:
        """TCP segments that the kernel has sent again, over the session's earlier links, too."""
        return self.session.retransmits + (0 if self.ended.is_set() else retransmits(self._sock))

    @property
    def silence(self) -> float | None:
        """Seconds for which the peer's host has acknowledged nothing, though it should; None: all is well."""
        return None if self.ended.is_set() else silence(self._sock)

    @property
    def age(self) -> float:
        """Seconds since it came up."""
        return now() - self.since

    # Life and death

    def ping(self) -> None:
        """Send PING. `heard_at` changes when anything arrives, `rtt` when the PONG does."""
        self._guarded(lambda: self.session.ping(monotonic_ns()))
        self.pump.settle()

    def drain(self) -> None:
        """`LaneSession.drain`, from outside a turn."""
        self.session.drain()
        self.pump.settle()

    def retire(self) -> None:
        """`LaneSession.retire`, from outside a turn."""
        self.session.retire()
        self.pump.settle()

    def doom(self, reason: CloseReason, detail: str = "") -> None:
        """End the link when the turn ends; only the first reason counts. Outside a turn, call `Pump.settle` then."""
        if not self._doomed:
            self._doomed, self.session.reading_stopped = True, True
            self.session.open_quota = 0  # whoever would open a stream asks `usable` again, which says no
            self.reason, self.detail = reason, detail
            self.pump.at_end(self._end)

    def _end(self) -> None:
        """Close the socket. When the connection broke, suspend a session that survives that, and end any other; else
        tell the peer the reason and end the session.
        """
        session = self.session
        session.retransmits += retransmits(self._sock)
        if self.reason not in LOST:
            self._say_goodbye()
            session.end(self.reason, self.detail)
        elif session.survives:
            session.suspend()
        else:
            session.end(self.reason, self.detail)
        self.pump.close(self._sock)
        self._buf = bytearray()  # the session keeps this object until its next link: free the memory now
        self._mem, self._wire, self._fd = memoryview(self._buf), None, -1
        self.ended.set()

    def _say_goodbye(self) -> None:
        """Send what is unsent and GOAWAY with the reason, as far as the socket takes it without waiting."""
        try:
            self.session.goaway(self.reason)
            while self.session.out.unsent and (sent := self._send()):
                self.session.out.sent += sent
            # close() with bytes unread sends a reset, and the peer may lose what is under way to it: read them first.
            self._sock.shutdown(socket.SHUT_WR)
            for _ in range(UNREAD):
                if not self._sock.recv_into(self._mem):
                    break
        except (OSError, ProtocolError):
            pass


def _failed(code: int) -> int:
    raise OSError(code, os.strerror(code))
