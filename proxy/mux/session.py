"""A session: the streams that a pair of proxies carries over one link at a time. When the link is lost, they go on over
the next one (`Session.resume`). Bytes go in, bytes and calls on a sink come out.

The driver calls `handle` with each frame that a link brought, and sends what it finds in ``out``. The turn
(proxy/pump/turn.py) moves plain DATA frames by itself, in both directions, without calling this file. Two invariants
make that possible:

* ``flow`` maps stream ids to the streams whose incoming DATA only has to be written to the local socket. The driver
  adds them, and removes one while its socket is full; this file removes those that have ended.
* of a stream, the turn changes nothing but ``credit`` and ``allow``: it subtracts the bytes that it moved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from proxy.errors import CloseReason, ProtocolError
from proxy.mux import frames
from proxy.mux.extracredit import ExtraCredit
from proxy.mux.frames import (
    HEADER,
    HEADER_SIZE,
    ID_MASK,
    KEY_SHIFT,
    KIND_SHIFT,
    LENGTH_MASK,
    REASON_BYTES,
    REASONS,
    FrameKind,
)
from proxy.mux.replay import ReplayBuffer
from proxy.mux.sink import SessionSink
from proxy.mux.stream import MAY_RECEIVE, MAY_SEND, TABLE, Stream, StreamEvent, StreamState

ACK_EVERY = 262144
"""Bytes received after which an ACK is due. Not earlier, because an ACK costs both hosts as much as several messages;
and half of what the smallest replay buffer keeps, so that bulk never waits for one."""
MAX_CREDIT = 1 << 31
MAX_LINGERING = 3 << 16
"""Closed streams whose ids may linger (about 120 bytes each). A third is for streams of our own: at OWN_LINGERING
`can_open` says no. Two thirds are for the peer's: as many as it may have open, and as many that it resets before our
answers reach it. Then its OPEN is an error; otherwise a peer that acknowledges nothing could fill our memory."""
CLEARED = 64
"""Largest open quota: streams that may be opened before the limits are checked again."""
OWN_LINGERING = MAX_LINGERING // 3 - CLEARED

# inlined: FrameKind, StreamState, StreamEvent
_KIND_OPEN, _KIND_OPENED, _KIND_RST = int(FrameKind.OPEN), int(FrameKind.OPENED), int(FrameKind.RST)
_CALLED, _CALLING, _OPEN, _CLOSED = StreamState.CALLED, StreamState.CALLING, StreamState.OPEN, StreamState.CLOSED
_RECV_OPENED, _RECV_RST = StreamEvent.RECV_OPENED, StreamEvent.RECV_RST
_SEND_OPENED = StreamEvent.SEND_OPENED
_unpack_from = HEADER.unpack_from

S = TypeVar("S", bound=Stream)

Handler = Callable[[int, memoryview, int, int], None]
"""Handles one frame: stream id, memory, and the positions between which the payload lies, ``mem[body:stop]``."""


def _unknown(stream_id: int, mem: memoryview, body: int, stop: int) -> None:
    raise AssertionError("has no payload that is short enough")


UNKNOWN: tuple[Handler, int] = (_unknown, -1)
"""In place of an entry of `Session.handlers` for kinds that do not exist: every payload is too long for it."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What each side tells the other in HELLO that it allows."""

    stream_credit: int = 256 * 1024
    """Bytes that the other side may send on a new stream before it gets a CREDIT."""
    max_streams: int = 65535
    """Streams that the other side may hold open at a time."""
    reasons: int = frames.FIRST_REASONS
    """The highest close reason that whoever tells this knows."""
    via: bool = False
    """Whether whoever tells this can read `Open.via`."""
    opens_per_second: int | None = None
    """Streams that the other side may open a second, over all sessions; None: they are not counted."""


class Session(Generic[S]):
    """One side's view of the streams, without I/O. Not thread-safe. The driver calls `close` in the end.

    Args:
        dialler: the dialling side opens streams with odd ids, the accepting side with even ones.
        stream_type: makes a stream; its arguments are the session and those of `Stream`.
        max_id: highest stream id, after which the lowest free one is next (tests make it tiny).

    Attributes:
        lingering: ids of closed streams for which late frames may come; each with the offset of ours that the
            peer must acknowledge first.
        received: bytes of whole frames handled so far: the peer's offset.
        open_quota: streams that may be opened before `can_open` checks the limits again.
        reading_stopped: set by the driver when the link ends: no more of the frames that it brought are to be handled.
        grant_below: a stream is due new credit when ``allow`` and its buffered bytes together are no more than this.
    """

    def __init__(
        self,
        *,
        dialler: bool,
        out: ReplayBuffer,
        sink: SessionSink[S],
        stream_type: Callable[[Self, int, StreamState, int, int], S],
        local: SessionSettings,
        remote: SessionSettings,
        max_id: int = frames.MAX_ID,
    ) -> None:
        self.out = out
        self.local, self.remote = local, remote
        self.streams: dict[int, S] = {}
        self.flow: dict[int, S] = {}
        self.lingering: dict[int, int] = {}
        self.received = 0
        self.open_quota = 0
        self.reading_stopped = self._going_away = self._around = False
        self.grant_below = local.stream_credit // 2
        self.extra_credit: ExtraCredit[S] = ExtraCredit(local.stream_credit)
        self._sink = sink
        self._stream_type = stream_type
        self._first_id = self._next_id = 1 if dialler else 2
        self._own = self._first_id & 1
        self._max_id = max_id
        self._acked = self._known = 0
        self._called = 0
        self._linger_order: deque[int] = deque()
        self.handlers: dict[int, tuple[Handler, int]] = {
            FrameKind.DATA: (self._on_data, frames.MAX_DATA),
            FrameKind.DATA_FIN: (self._on_fin, frames.MAX_DATA),
            FrameKind.OPEN: (self._on_open, frames.MAX_CONTROL),
            FrameKind.OPENED: (self._on_opened, frames.MAX_CONTROL),
            FrameKind.REFUSE: (self._on_refuse, frames.MAX_CONTROL),
            FrameKind.RST: (self._on_rst, frames.MAX_CONTROL),
            FrameKind.CREDIT: (self._on_credit, frames.MAX_CONTROL),
            FrameKind.ACK: (self._on_ack, frames.MAX_CONTROL),
            FrameKind.PING: (self._on_ping, frames.MAX_CONTROL),
            FrameKind.PONG: (self._on_pong, frames.MAX_CONTROL),
            FrameKind.GOAWAY: (self._on_goaway, frames.MAX_CONTROL),
        }
        """By kind of frame: what handles it, and the most bytes that its payload may have."""

    # What we do

    @property
    def going_away(self) -> bool:
        """Whether no more streams are to be opened because either side has sent GOAWAY, or the session is closed."""
        return self._going_away

    @going_away.setter
    def going_away(self, going_away: bool) -> None:
        self._going_away, self.open_quota = going_away, 0

    @property
    def called(self) -> int:
        """Open streams that the peer has opened."""
        return self._called

    @property
    def can_open(self) -> bool:
        """Whether one more stream may be opened."""
        return self.open_quota > 0 or self._clear()

    def _clear(self) -> bool:
        """Check the limits and set the open quota; returns whether it is above 0. The quota stays valid until it is
        used up, because only `open` uses our ids and the streams that the peer allows. (Ids of the peer's streams may
        begin to linger meanwhile; OWN_LINGERING leaves room for that.)
        """
        places = self.remote.max_streams - (len(self.streams) - self._called)
        places = min(places, OWN_LINGERING - len(self._linger_order))
        self.open_quota = 0
        if places > 0 and not self._going_away and (next_id := self._free_id(self._next_id)):
            self._next_id = next_id
            self.open_quota = self._free_from(next_id, min(places, CLEARED))
        return self.open_quota > 0

    def _free_id(self, stream_id: int) -> int:
        """The first id of ours, from `stream_id` on and then from the lowest, that is neither open nor lingering; 0 if
        there is none. It stays free until we use it.
        """
        streams, lingering = self.streams, self.lingering
        for _ in range(len(streams) + len(lingering) + 1):
            if stream_id > self._max_id:
                stream_id, self._around = self._first_id, True
            if stream_id not in streams and stream_id not in lingering:
                return stream_id
            stream_id += 2
        return 0

    def _free_from(self, stream_id: int, most: int) -> int:
        """How many consecutive ids of ours are free, beginning with `stream_id`, which is; `most` at most."""
        count = min(most, (self._max_id - stream_id) // 2 + 1)
        if self._around:  # before ids begin again at the lowest, none above `stream_id` has been used
            streams, lingering = self.streams, self.lingering
            for more in range(1, count):
                if stream_id + 2 * more in streams or stream_id + 2 * more in lingering:
                    return more
        return count

    def open(self: Self, call: bytes) -> S:
        """Open a stream, which may send at once. `call` is made by `encode_open`. Check `can_open` first: `open` does
        not.
        """
        stream_id = self._next_id
        self._next_id = stream_id + 2
        self.open_quota -= 1
        self.streams[stream_id] = stream = self._stream_type(
            self, stream_id, _CALLING, self.remote.stream_credit, self.local.stream_credit
        )
        self.out.put(_KIND_OPEN, stream_id, call)
        return stream

    def accept(self, stream: S) -> None:
        """Answer OPEN: the stream is delivered. OPENED is deferrable: the service mostly answers at once, and both are
        then sent together.
        """
        # inlined: Stream.advance
        stream.state = TABLE[stream.state][_SEND_OPENED]
        self.out.put(_KIND_OPENED, stream.id, b"", True)

    def refuse(self, stream: S, reason: CloseReason) -> None:
        """Answer OPEN: the stream is not delivered, and no byte of it has reached an application. It is closed."""
        stream.advance(StreamEvent.SEND_REFUSE)
        self.out.put(FrameKind.REFUSE, stream.id, frames.encode_reason(frames.known_to(self.remote.reasons, reason)))
        self._forget(stream)

    def sendable(self, stream: S, most: int = frames.MAX_DATA) -> int:
        """Payload bytes, up to `most`, that the stream may put into ``out`` now. 0: there is no credit or no room, or
        our direction has ended.
        """
        wanted = most if most < stream.credit else stream.credit
        return wanted if wanted and stream.state in MAY_SEND and self.out.room(wanted) else 0

    def sent(self, stream: S, length: int) -> None:
        """Make a DATA frame of `length` bytes, at most what `sendable` said, that lie at ``out.pos + HEADER_SIZE``."""
        out = self.out
        pos = out.pos
        HEADER.pack_into(out.buf, pos, stream.word + length)
        out.pos = pos + HEADER_SIZE + length
        stream.credit -= length
        if not out.dirty:
            out.touch()

    def fin(self, stream: S) -> None:
        """End our direction of the stream (FIN)."""
        stream.advance(StreamEvent.SEND_FIN)
        self.out.put(FrameKind.DATA_FIN, stream.id)
        if stream.state is StreamState.CLOSED:
            self._forget(stream)

    def reset(self, stream: S, reason: CloseReason) -> None:
        """End both directions of the stream (RST). After `on_closed` no call on the sink follows for it."""
        stream_id, out = stream.id, self.out
        del self.streams[stream_id]
        # inlined: Stream.advance
        stream.state = _CLOSED
        # inlined: frames.encode_reason
        out.put(_KIND_RST, stream_id, REASON_BYTES[reason])
        # inlined: Session._forget
        self.flow.pop(stream_id, None)
        if stream_id & 1 != self._own:
            self._called -= 1
        self.lingering[stream_id] = out.base + out.pos
        self._linger_order.append(stream_id)
        self._sink.on_closed(stream)

    def consumed(self, stream: S, buffered: int, now: float) -> None:
        """The local socket has taken bytes of the stream; `buffered` are still in the proxy at `now`, seconds. Grants
        new credit once half of the usual credit is used up, a quarter while any stream has extra credit.
        """
        if stream.allow + buffered <= self.grant_below and stream.state in MAY_RECEIVE:
            grant = self.extra_credit.credit(stream, buffered, now) - stream.allow - buffered
            # A fast stream must not run dry before the CREDIT reaches its sender.
            self.grant_below = self.local.stream_credit // 4 * (3 if self.extra_credit.extended else 2)
            stream.allow += grant
            stream.granted += grant
            self.out.put(FrameKind.CREDIT, stream.id, frames.encode_u32(grant))
            self.acknowledge()

    def ping(self, token: int) -> None:
        """Send PING, behind an ACK for what has arrived since the last one. The PONG brings `token` to `on_pong`."""
        self.acknowledge()
        self.out.put(FrameKind.PING, 0, frames.encode_u64(token))

    def goaway(self, reason: CloseReason) -> None:
        """Send GOAWAY: the peer is to open no more streams. Does not set `going_away`."""
        self.out.put(FrameKind.GOAWAY, 0, frames.encode_reason(reason))

    def acknowledge(self) -> None:
        """Send ACK with the count of bytes received, unless it was sent already."""
        if self._acked < self.received:
            self._acked = self.received
            self.out.put(FrameKind.ACK, 0, frames.encode_u64(self.received))

    def resume(self, received: int) -> None:
        """Go on over a new link: send again from offset `received` on, which the peer's HELLO has told. Raises only
        ProtocolError, and changes nothing then.
        """
        # HELLO overtakes frames that each side sends again. So it frees no lingering id, and an ACK frame is still due
        # for what it has said.
        self.out.rewind_untrusted(received)

    def close(self) -> list[S]:
        """End the session. Returns the streams that were open, which the driver ends; their state is as it was.
        Idempotent.
        """
        streams = list(self.streams.values())
        self.streams.clear()
        self.flow.clear()
        self.lingering.clear()
        self._linger_order.clear()
        self.going_away = True
        self.out.close()
        return streams

    # What the peer does

    def whole(self, buf: bytearray, pos: int, end: int) -> bool:
        """Whether ``buf[pos:end]`` begins with a whole frame. Raises ProtocolError if its header is complete and names
        an unknown kind or too large a payload.
        """
        if end - pos < HEADER_SIZE:
            return False
        word: int = _unpack_from(buf, pos)[0]
        length = word & LENGTH_MASK
        if length > self.handlers.get(word >> KIND_SHIFT, UNKNOWN)[1]:
            raise self._malformed(word)
        return pos + HEADER_SIZE + length <= end

    def handle(self, word: int, mem: memoryview, body: int, stop: int) -> None:
        """Handle a whole frame: `word` is its header, ``mem[body:stop]`` its payload.

        Raises ProtocolError if the peer broke the specification. The session is then unusable: the driver ends it and
        its link.
        """
        handler, largest = self.handlers.get(word >> KIND_SHIFT, UNKNOWN)
        if stop - body > largest:
            raise self._malformed(word)
        handler(word >> KEY_SHIFT & ID_MASK, mem, body, stop)

    def _malformed(self, word: int) -> ProtocolError:
        kind = word >> KIND_SHIFT
        if kind not in self.handlers:
            return ProtocolError(f"unknown frame kind 0x{kind:02x}")
        return ProtocolError(f"{FrameKind(kind).name} frame of {word & LENGTH_MASK} bytes")

    def received_bytes(self, count: int) -> None:
        """Count bytes of whole frames that were handled, here or by the turn. Sends an ACK after ACK_EVERY of them."""
        self.received += count
        if self.received - self._acked >= ACK_EVERY:
            self.acknowledge()

    def _live(self, stream_id: int, kind: str) -> S | None:
        """The stream that a frame is for; None: it is a late frame for a closed stream, to be ignored. Raises
        ProtocolError for any other id.
        """
        stream = self.streams.get(stream_id)
        if stream is None and stream_id not in self.lingering:
            raise ProtocolError(f"{kind} for stream {stream_id}, which does not exist")
        return stream

    def _on_data(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        data = mem[body:stop]
        if not data:  # would cost the peer no credit and us a system call
            raise ProtocolError(f"empty DATA on stream {stream_id}")
        stream = self._live(stream_id, "DATA")
        if stream is not None:
            stream.advance_untrusted(StreamEvent.RECV_DATA)
            if len(data) > stream.allow:
                raise ProtocolError(
                    f"DATA of {len(data)} bytes on stream {stream_id}, which had {stream.allow} bytes of credit left"
                )
            stream.allow -= len(data)
            self._sink.on_data(stream, data)

    def _on_fin(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        if stop > body:
            self._on_data(stream_id, mem, body, stop)
        stream = self._live(stream_id, "FIN")
        if stream is not None:
            stream.advance_untrusted(StreamEvent.RECV_FIN)
            self.flow.pop(stream_id, None)
            if stream.state is StreamState.CLOSED:
                self._forget(stream)
            self._sink.on_fin(stream)

    def _on_open(self: Self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        if stream_id & 1 == self._own or not 0 < stream_id <= self._max_id or stream_id in self.streams:
            raise ProtocolError(f"OPEN of stream {stream_id}, which is not the peer's to open")
        call = frames.decode_open_untrusted(bytes(mem[body:stop]))
        if self._called >= self.local.max_streams:
            raise ProtocolError(f"OPEN of more than the {self.local.max_streams} streams that HELLO allowed")
        if len(self._linger_order) >= MAX_LINGERING:
            raise ProtocolError(f"OPEN while the ends of {MAX_LINGERING} streams are unacknowledged")
        self.lingering.pop(stream_id, None)
        stream = self._stream_type(self, stream_id, _CALLED, self.remote.stream_credit, self.local.stream_credit)
        self.streams[stream_id] = stream
        self._called += 1
        self._sink.on_call(stream, call)

    def _on_opened(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        # inlined: Session._live
        stream = self.streams.get(stream_id) or self._live(stream_id, "OPENED")
        if stream is not None:
            # inlined: Stream.advance_untrusted
            if stream.state is _CALLING:
                stream.state = _OPEN
            else:
                stream.advance_untrusted(_RECV_OPENED)
            self._sink.on_opened(stream)

    def _on_refuse(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        reason = frames.decode_reason_untrusted(bytes(mem[body:stop]), "REFUSE")
        stream = self._live(stream_id, "REFUSE")
        if stream is not None:
            stream.advance_untrusted(StreamEvent.RECV_REFUSE)
            self._forget(stream, late_frames=False)
            self._sink.on_refused(stream, reason)

    def _on_rst(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        # inlined: frames.decode_reason_untrusted
        reason = REASONS.get(mem[body]) if stop - body == 1 else None
        if reason is None:
            reason = frames.decode_reason_untrusted(bytes(mem[body:stop]), "RST")  # raises
        # inlined: Session._live
        stream = self.streams.get(stream_id) or self._live(stream_id, "RST")
        if stream is not None:
            # inlined: Stream.advance_untrusted
            if stream.state is _OPEN:
                stream.state = _CLOSED
            else:
                stream.advance_untrusted(_RECV_RST)
            self._forget(stream, late_frames=False)
            self._sink.on_rst(stream, reason)

    def _on_credit(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        grant = frames.decode_u32_untrusted(bytes(mem[body:stop]), "CREDIT")
        stream = self._live(stream_id, "CREDIT")
        if stream is not None:
            if not 0 < grant <= MAX_CREDIT - stream.credit:
                raise ProtocolError(f"CREDIT of {grant} bytes on stream {stream_id}, which has {stream.credit}")
            stream.credit += grant
            stream.received_grants += grant
            self._sink.on_credit(stream)

    def _on_ack(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        offset = frames.decode_u64_untrusted(bytes(mem[body:stop]), "ACK")
        self.out.acknowledge_untrusted(offset)
        # Only an ACK frame frees ids: it comes behind the peer's late frames. The offset that `resume` gets does not.
        self._known = max(self._known, offset)
        order, lingering, known = self._linger_order, self.lingering, self._known
        while order and lingering.get(order[0], 0) <= known:
            lingering.pop(order.popleft(), None)

    def _on_ping(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        token = frames.decode_u64_untrusted(bytes(mem[body:stop]), "PING")
        self.acknowledge()
        self.out.put(FrameKind.PONG, 0, frames.encode_u64(token))

    def _on_pong(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        self._sink.on_pong(frames.decode_u64_untrusted(bytes(mem[body:stop]), "PONG"))

    def _on_goaway(self, stream_id: int, mem: memoryview, body: int, stop: int) -> None:
        self.going_away = True
        self._sink.on_goaway(frames.decode_reason_untrusted(bytes(mem[body:stop]), "GOAWAY"))

    def _forget(self, stream: S, *, late_frames: bool = True) -> None:
        """The stream is closed here: let its id linger until no late frame can come, and tell the sink.

        Args:
            late_frames: False after the peer's RST or REFUSE, behind which it sends nothing more. (A peer that opens
                and resets all the time must not fill our memory with ids that it never acknowledges.)
        """
        stream_id = stream.id
        del self.streams[stream_id]
        self.flow.pop(stream_id, None)
        if stream_id & 1 != self._own:
            self._called -= 1
        if late_frames:
            out = self.out
            # inlined: ReplayBuffer.end
            if (end := out.base + out.pos) > self._known:
                self.lingering[stream_id] = end
                self._linger_order.append(stream_id)
        self._sink.on_closed(stream)
