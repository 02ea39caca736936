"""A stream together with its local socket: the hinge between a session and a container's connection.

A lane in *plain flow* is handled by the turn alone. `update` is the only place that decides, from the lane's whole
state, whether it is: it puts the lane into (or takes it out of) ``pump.lanes`` for what the socket gives and
``session.flow`` for what the peer gives, and tells the epoll what to wait for. Everything else here runs only when
something out of the ordinary happens, and ends with `update` or a close.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic, monotonic_ns
from typing import TypeVarTuple

import structlog

from proxy.errors import CloseReason
from proxy.mux.frames import HEADER, HEADER_SIZE, KEY_SHIFT, MAX_DATA
from proxy.mux.replay import CHUNK
from proxy.mux.session import ACK_EVERY, MAX_CREDIT
from proxy.mux.stream import MAY_SEND, Stream, StreamState
from proxy.pump.carrier import CarriedSession
from proxy.pump.loop import Watcher
from proxy.pump.options import LocalSocket, disarm_reset
from proxy.pump.streamobserver import NULL_OBSERVER, StreamObserver

log = structlog.get_logger()
Ts = TypeVarTuple("Ts")

BULK_MARK = 64 * 1024
"""Unsent bytes in the out-buffer above which bulk is not read. Small messages go on up to HIGH_WATER, so they wait
behind at most this."""
BULK_RUN, BULK_CROWD = 8, 2
"""Reads in a turn of a stream that is bulk: one more in each turn in which no more than so many descriptors were ready,
its own, and the link's with what the peer acknowledges. Bulk that has the pump to itself pays for a turn once in eight
reads (docs/performance.md); as soon as others have something to say it is back at one."""
BULK_FLIGHT = ACK_EVERY
"""Unacknowledged bytes above which bulk that is not alone is not read, however much extra credit it has: small messages
would wait behind them on the cable and in the peer. No less than what the peer acknowledges without being asked."""
EARLY_LIMIT = CHUNK
"""Bytes read, and kept for another try, before the far side has answered OPEN."""
_TAKES_BYTES = frozenset({StreamState.OPEN, StreamState.FIN_SENT})
_IN_HUP = EPOLLIN | EPOLLHUP
_pack_into = HEADER.pack_into
_ONE, _PEEK = bytearray(1), int(socket.MSG_PEEK)
# As in proxy/mux/session.py: members that are looked up for every stream.
_OPEN, _CLOSED, _FINISHED = StreamState.OPEN, StreamState.CLOSED, CloseReason.FINISHED


class Lane(Stream):
    """See the module's text. Owns its socket from `attach` on, and closes it.

    Attributes:
        early: copy of the bytes sent before the far side answered OPEN; None afterwards and on the receiving host.
        eof: the local socket has said that it will give no more bytes.
    """

    __slots__ = (
        "_fd",
        "_mask",
        "_run",
        "_tcp",
        "_waiting",
        "early",
        "eof",
        "observer",
        "out",
        "pending",
        "recv_into",
        "send",
        "session",
        "since",
        "sock",
    )

    def __init__(
        self, session: CarriedSession[Lane], stream_id: int, state: StreamState, credit: int, allow: int
    ) -> None:
        # `Stream.__init__`, whose call would cost as much as all of this.
        self.session = session
        self.id = stream_id
        self.state = state
        self.credit = self.received_grants = credit
        self.allow = self.granted = allow
        self.granted_at = 0.0
        self.word = stream_id << KEY_SHIFT
        self.out = session.out
        self.observer: StreamObserver[Lane] = NULL_OBSERVER
        self.sock: LocalSocket | None = None
        self.pending: bytearray | None = None
        self.early: bytearray | None = None
        self.eof = self._waiting = False
        self._mask = self._run = 0
        self.since = monotonic()
        if not session.streams:
            session.usage.began()

    def attach(self, sock: LocalSocket, tcp: bool, watched: bool = False) -> None:
        """Take a connected, non-blocking local socket over.

        Args:
            tcp: whether it is a TCP socket, prepared as `options.prepare_local` does.
            watched: the socket is in the pump already, as `surrender` leaves it.
        """
        self.sock, self._tcp, self._mask = sock, tcp, EPOLLIN
        self._fd = fd = sock.fileno()
        self.recv_into, self.send = sock.recv_into, sock.send
        pump = self.session.pump
        if watched:
            pump.hand_on(fd, self)
            pump.interest(fd, EPOLLIN)
        else:
            pump.watch(fd, self, EPOLLIN)

    def start_calling(self) -> None:
        """Begin on the calling host: send what the caller has said so far."""
        out = self.out
        body = out.pos + HEADER_SIZE
        if body > out.limit:
            self.early = bytearray()
            return self._read(False)
        try:
            length = self.recv_into(out.mem[body : body + CHUNK])
        except OSError as error:
            self.early = bytearray()
            return self.on_recv_error(error)
        self.early = bytearray(out.mem[body : body + length])
        if not length:
            return self.on_eof()
        # `Session.sent`, as this happens to every stream.
        _pack_into(out.buf, body - HEADER_SIZE, self.word + length)
        out.pos = body + length
        self.credit -= length
        if not out.dirty:
            out.touch()
        if length == CHUNK:
            self.leave_plain_flow(length)

    def call_again(self, early: bytes, eof: bool) -> None:
        """Begin anew on the calling host: say again what the caller has said so far, and whether it has finished."""
        self.early = bytearray(early)
        while early:
            size = self.session.sendable(self, len(early))
            if not size:
                return self.abort(CloseReason.OVERLOADED)
            out = self.out
            out.mem[out.pos + HEADER_SIZE : out.pos + HEADER_SIZE + size] = early[:size]
            self.session.sent(self, size)
            early = early[size:]
        if eof:
            self.on_eof()
        else:
            self._read(False)

    def start_called(self, preface: bytes = b"") -> None:
        """Begin on the receiving host, now that the service has taken the connection: answer, and hand it `preface`
        (a header of our own) and the early bytes.
        """
        if preface:
            if not self.session.budget.take(len(preface)):
                return self.abort(CloseReason.OVER_BUDGET)
            self.pending = bytearray(preface) + (self.pending or b"")
        session = self.session
        session.accept(self)
        if self.pending:
            self._flush()
        elif self.state is _OPEN:  # as `update` finds it
            session.flow[self.id] = session.pump.lanes[self._fd] = self
        else:
            self._end_writing()

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return monotonic() - self.since

    @property
    def buffered(self) -> int:
        """Bytes held for the local socket."""
        return len(self.pending) if self.pending else 0

    def update(self) -> None:
        """Decide what may flow without a second look, and what to wait for."""
        if self.sock is None:
            return
        if (
            self.state is _OPEN
            and self._mask == EPOLLIN
            and self.early is None
            and not (self.pending or self._run or self._waiting)
            and self.credit >= CHUNK
        ):  # what follows would come to the same; most streams get here once, and no further
            self.session.pump.lanes[self._fd] = self
            self.session.flow[self.id] = self
            return
        state, pump, fd, early, pending = self.state, self.session.pump, self._fd, self.early, self.pending
        reading = state in MAY_SEND and not self._waiting and (early is None or len(early) < EARLY_LIMIT)
        mask = (EPOLLIN if reading else 0) | (EPOLLOUT if pending else 0)
        if mask != self._mask:
            self._mask = mask
            pump.interest(fd, mask)
            if early is not None and len(early) >= EARLY_LIMIT and not (self.eof or self._waiting):
                self.session.ping(monotonic_ns())  # its answer takes OPENED along, which might wait for company there
        if mask == EPOLLIN and not self._run and early is None and self.credit >= CHUNK:
            pump.lanes[fd] = self
        else:
            pump.lanes.pop(fd, None)
        if state in _TAKES_BYTES and not pending:
            self.session.flow[self.id] = self
        else:
            self.session.flow.pop(self.id, None)

    # What the local socket does

    def ready(self, mask: int) -> None:
        """The epoll says so (Watcher)."""
        if mask == _IN_HUP and self._mask == EPOLLIN and not (self._tcp or self._run):
            return self._hung_up()
        if mask & EPOLLOUT and self.pending:
            self._flush()
        if self.sock is None:
            return
        if self._mask & EPOLLIN and mask & (EPOLLIN | EPOLLHUP | EPOLLERR):
            read = self._read_bulk if self._run else self._read
            read(gone=mask & EPOLLHUP != 0 and not self._tcp)
        elif mask & EPOLLERR and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort(CloseReason.ABORTED)

    def crashed(self) -> None:
        """A bug showed in this lane (Watcher)."""
        self.abort(CloseReason.ABORTED)

    def abandoned(self) -> None:
        """Its link is gone, but there were bytes that nobody has taken yet (Watcher)."""
        self.drop(CloseReason.STOPPED)

    def guard(self, action: Callable[[*Ts], None], *args: *Ts) -> None:
        """The exception barrier of a stream: a bug that shows in `action` costs this stream only."""
        try:
            action(*args)
        except Exception:
            self.failed()

    def failed(self) -> None:
        """Say which exception is being handled, and give the stream up."""
        log.exception("unexpected error in a stream", peer=self.session.peer, service=self.observer.service)
        self.crashed()

    def _hung_up(self) -> None:
        """As ``_read(True)``, for the end of a short stream: mostly there is nothing left to read."""
        try:
            if self.early is not None or self.state is not _OPEN or self.recv_into(_ONE, 1, _PEEK):
                return self._read(True)
        except OSError as error:
            return self.on_recv_error(error)
        self.session.reset(self, _FINISHED)
        self._close(_FINISHED)

    def _read(self, gone: bool) -> None:
        """Receive once, with every check that the turn leaves out; gone: if the end comes now, it is that of both
        directions.
        """
        early = self.early
        length = self._receive(CHUNK if early is None else EARLY_LIMIT - len(early), gone)
        if length:
            self._run = int(length >= CHUNK)
            if early is None or len(early) >= EARLY_LIMIT:
                self.update()

    def _read_bulk(self, gone: bool) -> None:
        """Receive up to BULK_RUN times. Each piece is sent at once, so that small messages wait behind no more than
        BULK_MARK.
        """
        session = self.session
        self._run = run = min(self._run + 1, BULK_RUN) if session.pump.crowd <= BULK_CROWD else 1
        out, flight = self.out, MAX_CREDIT if run > 1 else BULK_FLIGHT
        for _ in range(run):
            held_back = out.unsent > BULK_MARK or out.unacked > flight
            length = self._receive(0 if held_back else MAX_DATA, gone)
            if length < CHUNK:
                break
            session.send_now()
        else:
            return
        if length and self.credit:
            self._run = 0
            self.update()

    def _receive(self, most: int, gone: bool) -> int:
        """Receive up to `most` bytes if there is credit and room, and make a frame of them; returns how many came."""
        out = self.out
        room = most and self.session.sendable(self, most)
        if not room:
            self._wait()
            return 0
        body = out.pos + HEADER_SIZE
        try:
            length = self.recv_into(out.mem[body : body + room])
        except OSError as error:
            self.on_recv_error(error)
            return 0
        if not length:
            self._on_gone() if gone else self.on_eof()
            return 0
        if self.early is not None:
            self.early += out.mem[body : body + length]
        self.session.sent(self, length)
        return length

    def _wait(self) -> None:
        """Stop reading until credit comes or the link has drained; either calls `resume`."""
        self._waiting = True
        if self.credit:
            self.session.waiting[self] = None
        self.update()

    def resume(self) -> None:
        """There may be credit and room again."""
        if self._waiting:
            self._waiting = False
            self.update()

    def leave_plain_flow(self, length: int) -> None:
        """The turn read a whole chunk (`length` bytes) or used nearly all credit."""
        self._run = int(length >= CHUNK)
        self.update()

    def on_eof(self) -> None:
        """The local socket will give no more bytes."""
        self.eof = True
        self.session.fin(self)
        if self.state is StreamState.CLOSED and not self.pending:
            self._close(CloseReason.FINISHED)
        else:
            self.update()

    def _on_gone(self) -> None:
        """The application closed its Unix socket altogether, having read all it wanted; AF_UNIX tells that apart from a
        half-close. Say so, as if there were no proxy between: nobody waits for bytes that nobody would read.
        """
        if self.state is not _OPEN:
            return self.on_eof()
        self.session.reset(self, _FINISHED)
        self._close(_FINISHED)

    def on_recv_error(self, error: OSError) -> None:
        """Receiving failed; anything but "nothing there" means that the application aborted."""
        if isinstance(error, BlockingIOError):
            self.update()
        else:
            self.abort(CloseReason.ABORTED)

    def on_send_error(self, error: OSError, data: memoryview) -> None:
        """Sending `data` failed: keep it if the socket is full, else the application is gone."""
        if isinstance(error, BlockingIOError):
            self.on_full(data)
        else:
            self.abort(CloseReason.ABORTED)

    def on_full(self, data: memoryview) -> None:
        """Keep what the socket did not take. The stream's credit bounds it, and the budget bounds the sum of all."""
        if not self.session.budget.take(len(data)):
            return self.abort(CloseReason.OVER_BUDGET)
        if self.pending is None:
            self.pending = bytearray()
        self.pending += data
        self.update()

    def _flush(self) -> None:
        """Send what was kept; afterwards see whether credit or an end is due."""
        if pending := self.pending:
            try:
                taken = self.send(pending)
            except BlockingIOError:
                return self.update()
            except OSError:
                return self.abort(CloseReason.ABORTED)
            del pending[:taken]
            self.session.budget.give(taken)
            self.session.consumed(self, len(pending), monotonic())
        if not self.pending:
            self.pending = None
            self._end_writing()
        else:
            self.update()

    # What the peer does (called by the session)

    def on_opened(self) -> None:
        """The far side delivered the stream: early bytes need not be kept any longer."""
        self.early = None
        self.observer.lane_opened(self)
        if self.state is _OPEN and self._mask == EPOLLIN and not (self.pending or self._run or self._waiting):
            self.session.flow[self.id] = self  # of `update` all that a short stream comes to see
        else:
            self.update()

    def on_data(self, data: memoryview) -> None:
        """DATA that the turn handed back."""
        if self.sock is None or self.pending:
            return self.on_full(data)
        try:
            taken = self.send(data)
        except OSError as error:
            return self.on_send_error(error, data)
        if taken < len(data):
            self.on_full(data[taken:])
        self.session.consumed(self, self.buffered, monotonic())

    def on_fin(self) -> None:
        """The peer will give no more bytes."""
        self._end_writing()

    def on_rst(self, reason: CloseReason) -> None:
        """The peer ended both directions: cleanly (FINISHED, then its bytes are passed on first), or by an abort."""
        if reason is not _FINISHED:
            self.drop(reason)
        elif self.pending:
            self.update()
        else:
            self._close(_FINISHED)

    def _end_writing(self) -> None:
        """Pass the peer's end on, if it has come and all its bytes have gone before it."""
        if not self.pending:
            if self.state is _CLOSED:
                return self._close(_FINISHED)
            if self.state is StreamState.FIN_RECEIVED and self.sock is not None:
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:  # the application is gone already; reading will tell how
                    pass
        self.update()

    # Ends

    def abort(self, reason: CloseReason) -> None:
        """End the stream and the local connection now, as a reset wherever the socket can express one. Idempotent."""
        if self.state in (StreamState.CALLED, StreamState.CALLED_FIN):
            self.session.refuse(self, reason)
        elif self.state is not StreamState.CLOSED:
            self.session.reset(self, reason)
        self.drop(reason)

    def drop(self, reason: CloseReason) -> None:
        """End the local connection of a stream that is closed already. Bytes not yet taken are lost, as in a TCP
        reset.
        """
        self.state = StreamState.CLOSED
        self._close(reason)

    def surrender(self, watcher: Watcher) -> LocalSocket | None:
        """Give the socket, still in the pump but with an interest in nothing, to `watcher`; this lane is done."""
        sock, self.sock = self.sock, None
        if sock is not None:
            self.session.pump.lanes.pop(self._fd, None)
            self.session.pump.hand_on(self._fd, watcher)
            self.session.pump.interest(self._fd, 0)
        return sock

    def _close(self, reason: CloseReason) -> None:
        session, sock, observer = self.session, self.sock, self.observer
        if self.pending:
            session.budget.give(len(self.pending))
            self.pending = None
        if session.extra_credit.extended:
            session.extra_credit.end(self)
        self.sock, self.observer, self._mask = None, NULL_OBSERVER, -1
        if sock is not None:
            if self._tcp and reason is _FINISHED:
                disarm_reset(sock)
            session.pump.close(sock)
        observer.lane_ended(self, reason)
