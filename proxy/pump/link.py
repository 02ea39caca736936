"""A session on its link: the one writer and the one reader of the link's socket, and the session's sink.

The link is always read, also while it cannot be written: credit bounds what may arrive, and a proxy that stops reading
because it cannot write deadlocks with a peer that does the same. A write that fails, or a frame that breaks the
specification, dooms the link: it ends, with a reason, when the turn does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from time import monotonic, monotonic_ns
from typing import Protocol

import structlog
import trio

from proxy.errors import CloseReason, ProtocolError
from proxy.mux.frames import MAX_DATA, Open
from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import Session, Settings
from proxy.mux.stream import State
from proxy.pump import turn
from proxy.pump.lane import BULK_MARK, Lane
from proxy.pump.loop import Pump
from proxy.pump.share import Share

log = structlog.get_logger()

IN_BUFFER = 2 * MAX_DATA
"""Bytes: always room for a whole frame, and at most ~2,000 small messages per turn."""

SLOW_FRAMES = 16
"""Frames other than plain DATA per turn. Opening a stream costs as much as 20 messages; after so many the turn ends, so
that what they caused is sent while the rest is handled (docs/performance.md)."""


QUEUEING_MEMORY = 1.0
"""Seconds after which an earlier wait counts for a third. A queue that lasts less than a tenth of this is a burst that
the kernel's buffer did not take, and another link would come too late."""


class Calls(Protocol):
    """Whoever delivers what the peer opens (inbound)."""

    def call(self, lane: Lane, call: Open) -> None:
        """Deliver the stream: later `Lane.attach` and `Lane.start_called`, or `Lane.abort`. Sets ``lane.owner``
        first.
        """


class Wire(Protocol):
    """What a link reads and writes through: its socket, or TLS in front of it. Both raise OSError as a socket does."""

    def recv_into(self, view: memoryview, /) -> int:
        """Bytes received; 0 at the end. Leaves nothing behind that the socket's readiness would not tell again."""

    def send(self, view: memoryview, /) -> int:
        """Bytes taken; fewer than all of them: wait until the socket is writable."""


class Usage(Protocol):
    """Whoever counts the streams (the pool). Called inside turns: must not take long."""

    def stream_began(self) -> None:
        """One more stream is open on the link."""

    def stream_ended(self, lane: Lane) -> None:
        """One is not any more; its owner has not been told yet."""


class Link:
    """See the module's text. Owns `sock`, which is connected, non-blocking and past the handshake, and the session on
    it.

    Args:
        name: for logs and the CLI; peer: the peer's host name.
        dialled: whether this side dialled.
        wire: what to read and write through instead of `sock`.

    Attributes:
        congested: whether bytes wait because the socket takes no more.
        lost_streams: how many were open when the link ended.
        ended: set when the link is gone and all its streams have been told; `reason` and `detail` then say why.
        heard: how often bytes have arrived.
        heard_at: when they last did, seconds (monotonic); rtt: of the last ping, seconds.
        opened_in: seconds from OPEN to OPENED of the stream that was delivered last; its sender did not wait.
        idle_since: when its last stream ended, or it came up, seconds (monotonic).
        bulk: whether its pool gives it bulk streams.
        retiring: whether it is leaving because nothing used it.
        serial: of the certificate that the peer showed, in hex; empty without TLS.
    """

    def __init__(
        self,
        pump: Pump,
        sock: socket.socket,
        *,
        name: str,
        peer: str,
        dialled: bool,
        local: Settings,
        remote: Settings,
        replay: int,
        calls: Calls,
        usage: Usage,
        wire: Wire | None = None,
    ) -> None:
        self.pump, self.name, self.peer, self.dialled = pump, name, peer, dialled
        self.budget = pump.budget.account(peer)
        self.ended = trio.Event()
        self.reason = CloseReason.FINISHED
        self.detail = ""
        self.since = self.heard_at = monotonic()
        self.heard = 0
        self.rtt: float | None = None
        self.opened_in: float | None = None
        self.congested = False
        self.local_address, self.remote_address = _name(sock.getsockname()), _name(sock.getpeername())
        self._sock = sock
        self._wire: Wire = sock if wire is None else wire
        self._calls = calls
        self._usage = usage
        self._buf = bytearray(IN_BUFFER)
        self._mem = memoryview(self._buf)
        self._filled = 0
        self._waiting: dict[Lane, None] = {}
        self._doomed = self._behind = False
        self.retiring = False
        self._retired_at = self._known_at = 0
        self.bulk = False
        self.idle_since = self.since
        self._queueing = Share(QUEUEING_MEMORY, self.since)
        self.lost_streams = 0
        self.serial = ""
        out = ReplayBuffer(pump.slabs, pump.touched, replay)
        self.session: Session[Lane] = Session(
            dialler=dialled, out=out, sink=self, stream_type=self._lane, local=local, remote=remote
        )
        pump.on_touched(out, self)

    def start(self, leftover: bytes) -> None:
        """Go into the pump. `leftover` is handled at once, as if it had just arrived."""
        self.pump.watch(self._sock, self, EPOLLIN)
        self._mem[: len(leftover)] = leftover
        self._filled = len(leftover)
        self._guarded(self._handle)
        self.pump.settle()

    # Reading

    def ready(self, mask: int) -> None:
        """The epoll says so (Watcher)."""
        if mask & EPOLLOUT and self.congested:
            self.congested = False
            self._queueing.set(False, monotonic())
            self.pump.interest(self._sock.fileno(), EPOLLIN)
            self.flush()
        if self._doomed:
            return
        if not mask:
            self._behind = False
            self._guarded(self._handle)
        elif mask & ~EPOLLOUT and not self._behind:
            self._guarded(self._receive)

    def crashed(self) -> None:
        """A bug showed in this link (Watcher)."""
        self.doom(CloseReason.PROTOCOL_ERROR, "internal error")

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ProtocolError as error:
            self.doom(CloseReason.PROTOCOL_ERROR, str(error))

    def _receive(self) -> None:
        try:
            count = self._wire.recv_into(self._mem[self._filled :])
        except BlockingIOError:
            return
        except OSError as error:
            return self.doom(CloseReason.LINK_LOST, error.strerror or str(error))
        if not count:
            return self.doom(CloseReason.LINK_LOST, "closed by the peer")
        self.heard += 1
        self.heard_at = monotonic()
        self._filled += count
        self._handle()

    def _handle(self) -> None:
        """Handle the whole frames that have arrived: plain DATA by the turn, each other frame by the session."""
        session, buf, mem, end = self.session, self._buf, self._mem, self._filled
        flow, grant_below, deliver, receive = session.flow, session.grant_below, turn.deliver, session.receive
        pos = 0
        slow_frames = SLOW_FRAMES
        while not self._doomed:
            handled = deliver(flow, grant_below, buf, mem, pos, end)
            pos = receive(buf, mem, handled, end)
            if pos == handled:
                break
            slow_frames -= 1
            if not slow_frames:
                self._behind = True
                self.pump.again(self)
                break
        session.received_bytes(pos)
        if pos:
            buf[: end - pos] = mem[pos:end]
            self._filled = end - pos
        self._resume_waiting()

    # Writing

    def flush(self) -> None:
        """Send what can be sent now; wait for the socket if that is not all."""
        out = self.session.out
        if out.overrun:
            return self.doom(CloseReason.PROTOCOL_ERROR, f"the peer left {out.unacked} bytes unacknowledged")
        while not self.congested and not self._doomed and out.unsent:
            view = out.unsent_view()
            try:
                sent = self._wire.send(view)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                return self.doom(CloseReason.LINK_LOST, error.strerror or str(error))
            out.sent += sent
            if sent < len(view):
                self.congested = True
                self._queueing.set(True, monotonic())
                self.pump.interest(self._sock.fileno(), EPOLLIN | EPOLLOUT)
        self._resume_waiting()

    def wait_for_room(self, lane: Lane) -> None:
        """Call ``lane.resume()`` once the out-buffer has drained, or the peer has acknowledged something."""
        self._waiting[lane] = None

    def _resume_waiting(self) -> None:
        if self._waiting and self.session.out.unsent <= BULK_MARK:
            waiting, self._waiting = self._waiting, {}
            for lane in waiting:
                lane.guard(lane.resume)

    @property
    def usable(self) -> bool:
        """Whether a new stream may be opened on it."""
        return self.session.can_open and not self._doomed

    @property
    def queueing(self) -> float:
        """The part of the last second or so in which bytes waited because the socket took no more, 0 to 1."""
        return self._queueing.value(monotonic())

    @property
    def leaving(self) -> bool:
        """Whether it takes no more streams, of either side, and ends when it has none."""
        return self.session.going_away

    @property
    def streams(self) -> int:
        """Streams open on it."""
        return len(self.session.streams)

    @property
    def age(self) -> float:
        """Seconds since it came up."""
        return monotonic() - self.since

    # Life and death

    def ping(self) -> None:
        """Ask the peer for a sign of life; `heard_at` moves when anything arrives, `rtt` when the answer does."""
        self._guarded(lambda: self.session.ping(monotonic_ns()))
        self.pump.settle()

    def drain(self) -> None:
        """Tell the peer to open no more streams here; open none either, and end when the last one has, as STOPPED."""
        self.session.going_away = True
        self.session.goaway(CloseReason.DRAINING)
        self._ask_whether_it_knows()
        self.pump.settle()

    def retire(self) -> None:
        """End the link as IDLE without losing a stream: open none any more, and close when the peer knows so and none
        is open (SPEC.md, section 7).
        """
        self.retiring = self.session.going_away = True
        self.session.goaway(CloseReason.IDLE)
        self._ask_whether_it_knows()
        self.pump.settle()

    def _ask_whether_it_knows(self) -> None:
        self._retired_at = monotonic_ns()
        self._guarded(lambda: self.session.ping(self._retired_at))

    def _end_if_retired(self) -> None:
        """The peer's answer to a ping behind the GOAWAY came behind every OPEN that crossed it; its answer to one
        behind the last stream's end, behind everything that was to be said of that.
        """
        if 0 < self._retired_at <= self._known_at and not self.session.streams:
            self.doom(CloseReason.IDLE if self.retiring else CloseReason.STOPPED)

    def doom(self, reason: CloseReason, detail: str = "") -> None:
        """End the link when the turn ends. The first reason counts. Outside a turn, `Pump.settle` must follow."""
        if not self._doomed:
            self._doomed = True
            self.reason, self.detail = reason, detail
            self.pump.at_end(self._end)

    def _end(self) -> None:
        """Tell the peer why if it may still listen, end every stream with the reason, close the socket."""
        if self.reason not in (CloseReason.LINK_LOST, CloseReason.PEER_TIMEOUT):
            self._say_goodbye()
        self._waiting.clear()
        self.pump.on_touched(self.session.out, None)
        lanes = self.session.close()
        self.lost_streams = len(lanes)
        for lane in lanes:
            self._usage.stream_ended(lane)
            lane.guard(lane.drop, self.reason)
        self.pump.close(self._sock)
        self.ended.set()

    def _say_goodbye(self) -> None:
        """GOAWAY with the reason, behind what is unsent, as far as the socket takes it without waiting."""
        try:
            self.session.goaway(self.reason)
            while (view := self.session.out.unsent_view()) and (sent := self._wire.send(view)):
                self.session.out.sent += sent
        except (OSError, ProtocolError):
            pass

    # The session's sink

    def _lane(self, session: Session[Lane], stream_id: int, state: State, credit: int, allow: int) -> Lane:
        self._usage.stream_began()
        return Lane(self, session, stream_id, state, credit, allow)

    def on_closed(self, stream: Lane) -> None:
        """Sink."""
        self._usage.stream_ended(stream)
        if not self.session.streams:
            self.idle_since = monotonic()
            if self._retired_at:
                self._ask_whether_it_knows()

    def on_call(self, stream: Lane, call: Open) -> None:
        """Exception barrier of a stream: a bug in delivering one refuses that one."""
        try:
            self._calls.call(stream, call)
        except Exception:
            log.exception("unexpected error while delivering a stream", peer=self.peer, service=call.service)
            stream.abort(CloseReason.CONNECT_FAILED)

    def on_opened(self, stream: Lane) -> None:
        """Sink."""
        self.opened_in = monotonic() - stream.since
        stream.guard(stream.on_opened)

    def on_refused(self, stream: Lane, reason: CloseReason) -> None:
        """Sink."""
        stream.guard(stream.owner.lane_refused, stream, reason)

    def on_data(self, stream: Lane, data: memoryview) -> None:
        """Sink."""
        stream.guard(stream.on_data, data)

    def on_fin(self, stream: Lane) -> None:
        """Sink."""
        stream.guard(stream.on_fin)

    def on_rst(self, stream: Lane, reason: CloseReason) -> None:
        """Sink."""
        stream.guard(stream.on_rst, reason)

    def on_credit(self, stream: Lane) -> None:
        """Sink."""
        stream.guard(stream.resume)

    def on_pong(self, token: int) -> None:
        """Sink."""
        self.rtt = max(0, monotonic_ns() - token) / 1e9
        self._known_at = token
        self._end_if_retired()

    def on_goaway(self, reason: CloseReason) -> None:
        """Sink. DRAINING, and IDLE for the first time, let open streams finish; any other reason ends the link."""
        if reason is CloseReason.IDLE and not self.retiring:
            self.retiring = True
        elif reason is not CloseReason.DRAINING:
            self.doom(reason, "ended by the peer")


def _name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
