"""A stream together with its local socket: the hinge between a session and a container's connection.

A lane in *plain flow* is handled by the turn alone (proxy/pump/turn.py). `update` decides that, from the lane's whole
state and for each direction: it puts the lane into ``pump.lanes`` if the turn may read its socket, or takes it out; the
lane is ``flowing`` if the turn may write the peer's DATA to that; and it tells the epoll what to wait for. Everything
else here runs when a stream begins or ends and when something out of the ordinary happens, and ends with `update` or a
close.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EAGAIN
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from time import monotonic_ns
from typing import TypeVarTuple

import structlog

from proxy.core.syscalls import now, peek, piece, recv, send
from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.mux.frames import HEADER_SIZE, MAX_DATA
from proxy.mux.session import MAX_CREDIT
from proxy.mux.sizes import ACK_EVERY, CHUNK, EARLY_LIMIT
from proxy.mux.stream import (
    CALLED,
    CALLED_FIN,
    CLOSED,
    FIN_RECEIVED,
    FIN_SENT,
    MAY_SEND,
    OPEN,
    Stream,
    bits,
)
from proxy.pump.carrier import CarriedSession
from proxy.pump.descriptor import Descriptor, fd_of, socket_of
from proxy.pump.lastwords import LOOK, LastWords, Patience, is_gone, told_already
from proxy.pump.openings import Batch
from proxy.pump.options import LocalSocket, disarm_reset
from proxy.pump.stalls import Stalls
from proxy.pump.streamobserver import NULL_OBSERVER, StreamObserver
from proxy.pump.streamtiming import StreamTiming
from proxy.pump.watcher import Watcher

log = structlog.get_logger()
Ts = TypeVarTuple("Ts")

BULK_MARK = 64 * 1024
"""Unsent bytes in the out-buffer above which bulk streams are not read. Others are read up to HIGH_WATER: so a small
message waits behind about this much bulk at most."""
BULK_RUN, BULK_CROWD = 8, 2
"""A bulk stream is read once in a turn; once more, up to BULK_RUN times, for each turn in succession in which at most
BULK_CROWD descriptors were ready: its own, and the link's with acknowledgements. So bulk that has the pump to itself
pays for a turn once in eight reads (docs/performance.md). When other descriptors are ready too it is back at one."""
BULK_FLIGHT = ACK_EVERY
"""Unacknowledged bytes above which a bulk stream that is not alone is not read, even if it has extra credit: small
messages would wait behind them on the cable and in the peer. Not lower, as the peer sends no ACK before ACK_EVERY."""
_TAKES_BYTES = bits(OPEN, FIN_SENT)
_IN_HUP = EPOLLIN | EPOLLHUP
_DEAF = EPOLLIN | EPOLLRDHUP
"""What a deaf lane waits for while it reads. It is not EPOLLIN, so neither the turn nor `_hung_up` takes its end for a
clean one."""
_FINISHED = CloseReason.FINISHED  # as the names of stream.py


class Lane(Stream):
    """A stream that moves bytes to and from a local socket. Owns the socket from `attach` on, and closes it.

    It is *deaf* after a failed write: its application takes no more bytes. That ends this direction only. What the
    peer sends is dropped; what the application had written before is read to its end, and then the stream is aborted.

    Attributes:
        counted_sent, counted_received: payload bytes that whoever counts them has counted already.
        batch: the calls without an answer that it is one of (`openings`); None: it is not, or has left.
        fd: the socket's descriptor; -1: it has none, or no more.
        early: copy of the bytes sent before the peer answered OPEN; None afterwards, and on the receiving host.
        eof: whether the local socket has come to its end.
        pending: bytes that the local socket has not taken yet; None or empty: there are none.
        observer: is told of the answer to OPEN and of the end.
        since: when the stream was opened, seconds (monotonic).
        stalls: how long it was held back; None: it never was.
        timing: is told of the answer to OPEN and of the first byte from the peer, which is handled outside plain flow
            for it; None: that byte has come, or nobody wants to know.
        _deaf: whether it is deaf.
        _hung: the application has closed its socket in both directions, as far as that was seen.
        _owner: who owns the socket's descriptor; None: there is none, or no more.
        _mask: events that the epoll waits for; -1 when closed.
        _run: reads in a turn if the stream is bulk; 0: it is not.
        _waiting: reading has stopped until `resume`.
    """

    __slots__ = (
        "_deaf",
        "_hung",
        "_mask",
        "_owner",
        "_run",
        "_tcp",
        "_waiting",
        "batch",
        "counted_received",
        "counted_sent",
        "early",
        "eof",
        "fd",
        "observer",
        "out",
        "pending",
        "session",
        "since",
        "stalls",
        "timing",
    )

    def __init__(
        self, session: CarriedSession, stream_id: int, state: int, credit: int, allow: int
    ) -> None:
        self.join(session, stream_id, state, credit, allow)

    def join(self, session: CarriedSession, stream_id: int, state: int, credit: int, allow: int) -> None:
        """What `__init__` does. (`LaneSession` makes lanes without a call of that, whose arguments would all become
        objects.)
        """
        self.begin(stream_id, state, credit, allow)
        self.session = session
        self.out = session.out
        self.observer: StreamObserver = NULL_OBSERVER
        self.batch: Batch | None = None
        self._owner: LocalSocket | Descriptor | None = None
        self.pending: bytearray | None = None
        self.early: bytes | None = None
        self.eof = self._waiting = self._hung = self._deaf = self._tcp = False
        self._mask = self._run = 0
        self.fd = -1
        self.counted_sent = self.counted_received = 0
        self.stalls: Stalls | None = None
        self.timing: StreamTiming | None = None
        self.since = now()
        if not session.streams:
            session.usage.began()

    @property
    def sock(self) -> LocalSocket | None:
        """The local socket, which the lane goes on owning; None: it has none, or no more."""
        if self._owner is None:
            return None
        self._owner = sock = socket_of(self._owner)
        return sock

    def attach(self, sock: LocalSocket | Descriptor, tcp: bool, watched: bool = False) -> None:
        """Take a connected, non-blocking local socket over, and wait until it is readable.

        Args:
            tcp: whether it is a TCP socket, prepared by `options.prepare_local`.
            watched: the socket is registered with the pump already, as `surrender` leaves it.
        """
        self._owner, self._tcp, self._mask = sock, tcp, EPOLLIN
        self.fd = fd_of(sock)
        pump = self.session.pump
        if watched:
            pump.hand_on(self.fd, self)
            pump.interest(self.fd, EPOLLIN)
        else:
            pump.watch(self.fd, self, EPOLLIN)

    def start_calling(self) -> None:
        """Begin on the calling host: read what the caller has written so far, and send it behind OPEN."""
        self.early = b""
        self._read(False)

    def call_again(self, early: bytes, eof: bool) -> None:
        """Begin on the calling host after another host has refused: send the early bytes again, and FIN if `eof`.
        Aborts with OVERLOADED if the session has no room for them.
        """
        self.early = early
        while early:
            size = self.session.sendable(self, len(early))
            if not size:
                return self.abort(CloseReason.OVERLOADED)
            body = self.out.pos + HEADER_SIZE
            self.out.mem[body : body + size] = early[:size]
            self.session.sent(self, size)
            early = early[size:]
        if eof:
            self.on_eof()
        else:
            self._read(False)

    def start_called(self, preface: bytes = b"") -> None:
        """Begin on the receiving host, when the service has taken the connection: answer OPENED, and send the service
        `preface` (a PROXY protocol header) and the early bytes behind it.
        """
        if preface:
            if not self.session.budget.take(len(preface)):
                return self.abort(CloseReason.OVER_BUDGET)
            self.pending = bytearray(preface) + (self.pending or b"")
        self.session.accept(self)
        if self.pending:
            self._flush()
        else:
            self._end_writing()

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return now() - self.since

    def left(self) -> bool | None:
        """Whether the application has closed its socket. None: it has ended what it says, which TCP does not tell from
        a close before the answer is sent.
        """
        return None if self.eof and self._tcp and not self._hung else self.eof and self._hung

    def leave_window(self) -> None:
        """It is in nobody's way any more (`openings.OpeningWindow`). Idempotent."""
        batch, self.batch = self.batch, None
        if batch is not None:
            batch.window.drop(batch)

    @property
    def buffered(self) -> int:
        """Bytes held for the local socket."""
        return len(self.pending) if self.pending else 0

    def update(self) -> None:
        """Decide whether the turn reads and writes the socket by itself, and set what the epoll waits for."""
        if self._owner is None:
            return
        state, pump, fd, early, pending = self.state, self.session.pump, self.fd, self.early, self.pending
        reading = MAY_SEND >> state & 1 and not self._waiting and (early is None or len(early) < EARLY_LIMIT)
        mask = (EPOLLIN if reading else 0) | (EPOLLOUT if pending else 0)
        if reading and self._deaf:
            mask = _DEAF
        if mask != self._mask:
            self._mask = mask
            pump.interest(fd, mask)
            if early is not None and len(early) >= EARLY_LIMIT and not (self.eof or self._waiting):
                self.session.ping(monotonic_ns())  # the peer may hold OPENED back as deferrable: PONG takes it along
        if mask == EPOLLIN and not self._run and early is None and self.credit >= CHUNK:
            pump.lanes[fd] = self
        else:
            pump.lanes[fd] = None
        self.flowing = _TAKES_BYTES >> state & 1 == 1 and not (pending or self._deaf) and self.timing is None

    # What the local socket does

    def ready(self, mask: int) -> None:
        """Handle an event that the turn did not (`Watcher.ready`)."""
        if mask == _IN_HUP and self._mask == EPOLLIN and not (self._tcp or self._run):
            return self._hung_up()
        if mask & EPOLLOUT and self.pending:
            self._flush()
        if self._owner is None:
            return
        if self._mask & EPOLLIN and mask & (EPOLLIN | EPOLLHUP | EPOLLERR):
            read = self._read_bulk if self._run else self._read
            read(gone=mask & EPOLLHUP != 0 and not self._tcp)
        elif mask & EPOLLERR and self._failure():
            self._deafen()
        elif mask & EPOLLHUP:
            self._hung = True

    def _failure(self) -> int:
        """The socket's pending error (SO_ERROR); 0: there is none."""
        return 0 if self.sock is None else self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def crashed(self) -> None:
        """Abort the stream: it has a bug (`Watcher.crashed`)."""
        self.abort(CloseReason.ABORTED)

    def abandoned(self) -> None:
        """Drop what the application has not taken of a stream that has ended already (`Watcher.abandoned`)."""
        self.drop(CloseReason.STOPPED)

    def guard(self, action: Callable[[*Ts], None], *args: *Ts) -> None:
        """The exception barrier of a stream: an unexpected exception in `action` costs this stream only."""
        try:
            action(*args)
        except Exception:
            self.failed()

    def failed(self) -> None:
        """Log the exception that is being handled, and abort the stream."""
        log.exception("unexpected error in a stream", peer=self.session.peer, service=self.observer.service)
        self.crashed()

    def _hung_up(self) -> None:
        """The application has closed its Unix socket (EPOLLHUP). Mostly nothing is left to read, which a peek shows."""
        if self.early is not None or self.state != OPEN:
            return self._read(True)
        there = peek(self.fd)
        if there > 0:
            self._read(True)
        elif there:
            self.on_recv_error(-there)
        else:
            self._on_gone()

    def _read(self, gone: bool) -> None:
        """Receive once, with every check that the turn leaves out.

        Args:
            gone: the application has closed its Unix socket: if the end is read now, it is that of both directions.
        """
        length = self._receive(CHUNK if self.early is None else EARLY_LIMIT - len(self.early), gone)
        if length:
            self._run = int(length >= CHUNK)
            if self.early is None or len(self.early) >= EARLY_LIMIT:
                self.update()

    def _read_bulk(self, gone: bool) -> None:
        """Receive up to BULK_RUN times. Each piece is sent at once, so that small messages wait behind no more than
        BULK_MARK bytes. A read of fewer than CHUNK bytes shows that the stream is not bulk any more.
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
        """Receive up to `most` bytes and make a frame of them; returns how many came. Without credit or room, or if
        `most` is 0, stop reading until there is.
        """
        out = self.out
        room = most and self.session.sendable(self, most)
        if not room:
            self._wait()
            return 0
        body = out.pos + HEADER_SIZE
        length = recv(self.fd, out.buf, body, room)
        if length < 0:
            self.on_recv_error(-length)
            return 0
        if not length:
            if self._deaf:
                self.abort(CloseReason.ABORTED)
            elif gone:
                self._on_gone()
            else:
                self.on_eof()
            return 0
        if self.early is not None:
            early = piece(out.buf, body, length)
            self.early = self.early + early if self.early else early
        self.session.sent(self, length)
        return length

    def _wait(self) -> None:
        """Stop reading until `resume`, which the peer's CREDIT calls, or the link when the out-buffer has room."""
        self._waiting = True
        if self.credit:
            self.session.waiting[self] = None
        self._held_back().from_sending(self.credit > 0, now())
        self.update()

    def resume(self) -> None:
        """Read again, if `_wait` stopped it: there may be credit and room now."""
        if self._waiting:
            self._waiting = False
            self._held_back().sending(now())
            self.update()

    def _held_back(self) -> Stalls:
        if self.stalls is None:
            self.stalls = Stalls()
        return self.stalls

    def leave_plain_flow(self, length: int) -> None:
        """The turn read `length` bytes: a whole CHUNK, which makes the stream bulk, or less than CHUNK of credit is
        left.
        """
        self._run = int(length >= CHUNK)
        self.update()

    def on_eof(self) -> None:
        """The local socket has come to its end: send FIN, and close if the peer's direction has ended too."""
        self.eof = True
        self.session.fin(self)
        if self.state == CLOSED and not self.pending:
            self._close(_FINISHED)
        else:
            self.update()

    def _on_gone(self) -> None:
        """The application closed its Unix socket in both directions; AF_UNIX tells that from a half-close. Reset the
        stream as FINISHED, so that the other end, as without a proxy, need not go on for a reader that is gone.
        """
        if self.state != OPEN:
            self._hung = True
            return self.on_eof()
        self.session.reset(self, _FINISHED)
        self._close(_FINISHED)

    def on_recv_error(self, code: int) -> None:
        """Receiving failed with this errno: there was nothing to read (EAGAIN), or else the application has aborted.
        The kernel says so only when all that it had written was read.
        """
        if code == EAGAIN:
            self.update()
        else:
            self.abort(CloseReason.ABORTED)

    def on_untaken(self, taken: int, data: bytearray) -> None:
        """The socket took `taken` bytes of `data`, not all, or none (-EAGAIN): keep the rest. Sending failed for
        another reason, a negative errno: the application takes no more.
        """
        if taken >= 0:
            self.on_full(data[taken:])
        elif taken == -EAGAIN:
            self.on_full(data)
        else:
            self._deafen()

    def _deafen(self) -> None:
        """A write has failed, or would: be deaf from now on. Abort if the application has no more to say either, or no
        host has taken its call yet: another one would not learn that it is gone.
        """
        if self.eof or self.early is not None or self.state == CLOSED:
            return self.abort(CloseReason.ABORTED)
        if self._deaf:
            return
        self._deaf = True
        self._forget_pending()
        session = self.session
        session.consumed(self, 0, now())
        self._mask = _DEAF
        session.pump.interest(self.fd, _DEAF)
        self.update()
        session.pump.deadlines.add(LOOK, partial(self._wait_for_reader, Patience(self.bytes_sent)))

    def _wait_for_reader(self, patience: Patience) -> None:
        """Abort a deaf stream whose last words the peer's application does not take."""
        if self.sock is None:
            return
        if self.session.suspended or not self._waiting or not is_gone(self.sock):
            patience.pause()
        if patience.over(self.bytes_sent):
            if self.state != CLOSED:
                # The peer may still deliver what it has: it has a patience of its own.
                self.session.reset(self, CloseReason.ABORTED)
            return self.drop(CloseReason.UNREAD)
        self.session.pump.deadlines.add(LOOK, partial(self._wait_for_reader, patience))

    def _forget_pending(self) -> None:
        if self.pending:
            self.session.budget.give(len(self.pending))
            self.pending = None
            self._held_back().delivering(now())

    def on_full(self, data: bytearray) -> None:
        """Keep what the socket did not take, or abort with OVER_BUDGET. The stream's credit bounds what is kept, and
        the budget bounds the sum for all streams.
        """
        if not self.session.budget.take(len(data)):
            return self.abort(CloseReason.OVER_BUDGET)
        if self.pending is None:
            self.pending = bytearray()
            self._held_back().from_delivering(now())
        self.pending += data
        self.update()

    def _send(self, data: bytearray) -> int:
        """Send what the socket takes now; as `syscalls.send`."""
        return send(self.fd, data, 0, len(data))

    def _flush(self) -> None:
        """Send what was kept, grant credit for what was taken, and pass the peer's end on when nothing is left."""
        if pending := self.pending:
            taken = self._send(pending)
            if taken == -EAGAIN:
                return self.update()
            if taken < 0:
                return self._deafen()
            del pending[:taken]
            self.session.budget.give(taken)
            self.session.consumed(self, len(pending), now())
        if not self.pending:
            if self.pending is not None:
                self.pending = None
                self._held_back().delivering(now())
            self._end_writing()
        else:
            self.update()

    # What the peer does (called by the session)

    def on_opened(self) -> None:
        """The peer delivered the stream (OPENED): early bytes need not be kept any longer."""
        self.early = None
        self.observer.lane_opened(self)
        self.update()

    def on_data(self, data: bytearray) -> None:
        """Write DATA that the turn did not to the local socket, or keep it until the socket takes it."""
        if self.timing is not None:
            timing, self.timing = self.timing, None
            timing.first_byte(now())
            self.update()
        if self._deaf:
            return self.session.consumed(self, 0, now())
        if self._owner is None or self.pending:
            return self.on_full(data)
        taken = self._send(data)
        if taken != len(data):
            self.on_untaken(taken, data)
        if taken >= 0:
            self.session.consumed(self, self.buffered, now())

    def on_fin(self) -> None:
        """The peer has ended its direction (FIN)."""
        self._end_writing()

    def on_rst(self, reason: CloseReason) -> None:
        """The peer ended both directions: cleanly with FINISHED, or by an abort. If that was an application's, the
        other one first gets all that it had said (`LastWords`).
        """
        if reason is _FINISHED and not self.pending:
            self._close(_FINISHED)
        elif (
            (sock := self.sock) is None
            or self._deaf
            or reason not in OF_APPLICATIONS
            or not (self.pending or self._tcp)  # AF_UNIX: it has everything
        ):
            self.drop(reason)
        else:
            self._leave_to_last_words(sock, reason, self.over)

    def _end_writing(self) -> None:
        """When the socket has taken all bytes, pass the peer's end on: close the socket if the stream is closed, shut
        it down for writing if only the peer's direction has ended.
        """
        if not self.pending:
            if self.state == CLOSED:
                return self._close(_FINISHED)
            if self.state == FIN_RECEIVED and (sock := self.sock) is not None:
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:  # the application is gone already; reading shows whether it closed or aborted
                    pass
        self.update()

    # Ends

    def abort(self, reason: CloseReason) -> None:
        """End the stream (REFUSE if the peer's OPEN has not been answered, else RST) and the local connection now, as a
        reset wherever the socket can express one. Idempotent.
        """
        if self.state in (CALLED, CALLED_FIN):
            self.session.refuse(self, reason)
        elif self.state != CLOSED:
            self.session.reset(self, reason)
        self.drop(reason)

    def drop(self, reason: CloseReason) -> None:
        """End the local connection, as `abort` does, of a stream that is over for the session. Bytes not yet taken are
        lost, as with a TCP reset.
        """
        self.state = CLOSED
        self._close(reason)

    def surrender(self, watcher: Watcher) -> LocalSocket | None:
        """Return the socket, which this lane does not close any more; None: there was none. It stays registered with
        the pump, for `watcher` and no events. The lane is over; its observer is not told.
        """
        sock, self._owner = self.sock, None
        if sock is not None:
            self.session.pump.lanes[self.fd] = None
            self.session.pump.hand_on(self.fd, watcher)
            self.session.pump.interest(self.fd, 0)
            self.fd = -1
        return sock

    def _leave_to_last_words(
        self, sock: LocalSocket, reason: CloseReason, on_end: Callable[[CloseReason], None]
    ) -> None:
        pending, self.pending, self._owner = self.pending or b"", None, None
        session = self.session
        session.extra_credit.end(self)
        session.pump.lanes[self.fd] = None
        self.fd = -1
        LastWords(session.pump, sock, reason, pending, session.budget, on_end).start()

    def over(self, reason: CloseReason) -> None:
        """The reader has all that was said, or never will (`LastWords`)."""
        self._close(reason)

    def _close(self, reason: CloseReason) -> None:
        session, owner, observer = self.session, self._owner, self.observer
        if self.pending:
            self._forget_pending()
        if session.extra_credit.extended:
            session.extra_credit.end(self)
        self.observer, self._mask = NULL_OBSERVER, -1
        if owner is not None:
            if self._tcp and reason is _FINISHED:
                sock = self.sock
                assert sock is not None
                if not self.eof:  # it may still be writing
                    self._leave_to_last_words(sock, reason, partial(told_already, observer, session.peer))
                    return observer.lane_ended(self, reason)
                self._hung = self._failure() != 0  # reset by what it was sent
                disarm_reset(sock)
                owner = sock
            self._owner = None
            session.pump.close(owner)
            self.fd = -1
        observer.lane_ended(self, reason)
