"""A session: the streams that a pair of proxies carries over one link at a time. When the link is lost, they go on over
the next one (`Session.resume`). Bytes go in, bytes and the calls of a `SessionSink` come out.

The driver calls `handle` with each frame that a link brought, and sends what it finds in ``out``. The turn
(proxy/pump/turn.py) writes plain DATA frames of streams that are ``flowing`` to local sockets by itself. Of a stream it
changes nothing but ``credit`` and ``allow``: it subtracts the bytes that it moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy.core.syscalls import piece, word_at
from proxy.errors import CloseReason, ProtocolError
from proxy.mux.extracredit import ExtraCredit
from proxy.mux.frames import (
    FIRST_REASONS,
    HEADER_SIZE,
    ID_MASK,
    KEY_SHIFT,
    KIND_SHIFT,
    KNOWN_OPENS,
    LENGTH_MASK,
    MAX_CONTROL,
    MAX_DATA,
    MAX_ID,
    REASON_BYTES,
    REASONS,
    FrameKind,
    decode_open_untrusted,
    decode_reason_untrusted,
    decode_u32_untrusted,
    decode_u64_untrusted,
    encode_u32,
    encode_u64,
    known_to,
)
from proxy.mux.replay import ReplayBuffer
from proxy.mux.sink import SessionSink
from proxy.mux.sizes import ACK_EVERY, NEAR
from proxy.mux.stream import (
    CALLED,
    CALLING,
    CLOSED,
    MAY_RECEIVE,
    MAY_SEND,
    RECV_DATA,
    RECV_FIN,
    RECV_OPENED,
    RECV_REFUSE,
    RECV_RST,
    SEND_FIN,
    SEND_OPENED,
    SEND_REFUSE,
    SEND_RST,
    Stream,
)

MAX_CREDIT = 1 << 31
MAX_LINGERING = 3 << 16
"""Closed streams whose ids may linger (about 120 bytes each). A third is for streams of our own: at OWN_LINGERING
`can_open` says no. Two thirds are for the peer's: as many as it may have open, and as many that it resets before our
answers reach it. Then its OPEN is an error; otherwise a peer that acknowledges nothing could fill our memory."""
MOST_HOLES = 512
"""Ids that may have left `lingering` until it is made anew: a dict keeps the places of those, and every ACK, of 16
bytes, would pass up to 200,000 of them (0.2 ms)."""
CLEARED = 64
"""Largest open quota: streams that may be opened before the limits are checked again."""
OWN_LINGERING = MAX_LINGERING // 3 - CLEARED

# Integers of C, where this is compiled.
DATA, DATA_FIN, CREDIT, ACK = FrameKind.DATA, FrameKind.DATA_FIN, FrameKind.CREDIT, FrameKind.ACK
OPEN, OPENED, REFUSE, RST = FrameKind.OPEN, FrameKind.OPENED, FrameKind.REFUSE, FrameKind.RST
PING, PONG, GOAWAY = FrameKind.PING, FrameKind.PONG, FrameKind.GOAWAY


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What each side tells the other in HELLO that it allows."""

    stream_credit: int = 256 * 1024
    """Bytes that the other side may send on a new stream before it gets a CREDIT."""
    max_streams: int = 65535
    """Streams that the other side may hold open at a time."""
    reasons: int = FIRST_REASONS
    """The highest close reason that whoever tells this knows."""
    via: bool = False
    """Whether whoever tells this can read `Open.via`."""
    opens_per_second: int | None = None
    """Streams that the other side may open a second, over all sessions; None: they are not counted."""


class Session(SessionSink):
    """One side's view of the streams, without I/O. Not thread-safe. The driver's subclass makes the streams (`_make`)
    and is told what the peer does (`SessionSink`); the driver calls `close` in the end.

    Args:
        dialler: the dialling side opens streams with odd ids, the accepting side with even ones.
        max_id: highest stream id, after which the lowest free one is next (tests make it tiny).

    Attributes:
        lingering: ids of closed streams for which late frames may come; each with the offset of ours that the
            peer must acknowledge first. In that order.
        near: some of the streams again, for whoever has no number of Python's at hand to look one up by: that of id N,
            if its place has not been taken since by another one, is ``near[N >> 1 & NEAR]``.
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
        local: SessionSettings,
        remote: SessionSettings,
        max_id: int = MAX_ID,
    ) -> None:
        self.out = out
        self.local, self.remote = local, remote
        self._credit, self._allow = remote.stream_credit, local.stream_credit
        self.streams: dict[int, Any] = {}
        self.near: list[Any] = [None] * (NEAR + 1)
        self.lingering: dict[int, int] = {}
        self.received = self.open_quota = 0
        self.reading_stopped = self._going_away = self._around = False
        self.grant_below = local.stream_credit // 2
        self.extra_credit = ExtraCredit(local.stream_credit)
        self._first_id = self._next_id = 1 if dialler else 2
        self._own = self._first_id & 1
        self._max_id = max_id
        self._acked = self._known = self._called = self._holes = self._newest = 0
        self._most_called, self._most_lingering = local.max_streams, MAX_LINGERING

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
        places = min(places, OWN_LINGERING - len(self.lingering))
        self.open_quota = 0
        if places > 0 and not self._going_away and (next_id := self._free_id(self._next_id)):
            self._next_id = next_id
            self.open_quota = self._free_from(next_id, min(places, CLEARED))
        return self.open_quota > 0

    def _free_id(self, stream_id: int) -> int:
        """The first id of ours, from `stream_id` on and then from the lowest, that is neither open nor lingering; 0 if
        there is none. It stays free until we use it.
        """
        for _ in range(len(self.streams) + len(self.lingering) + 1):
            if stream_id > self._max_id:
                stream_id, self._around = self._first_id, True
            if stream_id not in self.streams and stream_id not in self.lingering:
                return stream_id
            stream_id += 2
        return 0

    def _free_from(self, stream_id: int, most: int) -> int:
        """How many consecutive ids of ours are free, beginning with `stream_id`, which is; `most` at most."""
        count = min(most, (self._max_id - stream_id) // 2 + 1)
        if self._around:  # before ids begin again at the lowest, none above `stream_id` has been used
            for more in range(1, count):
                if stream_id + 2 * more in self.streams or stream_id + 2 * more in self.lingering:
                    return more
        return count

    def open(self, call: bytes) -> Any:
        """Open a stream, which may send at once. `call` is made by `encode_open`. Check `can_open` first: `open` does
        not.
        """
        stream_id = self._next_id
        self._next_id = stream_id + 2
        self.open_quota -= 1
        stream = self._add(stream_id, CALLING)
        self.out.put(OPEN, stream_id, call)
        return stream

    def _add(self, stream_id: int, state: int) -> Any:
        stream = self._make(stream_id, state)
        self.streams[stream.key] = self.near[stream_id >> 1 & NEAR] = stream
        return stream

    def _make(self, stream_id: int, state: int) -> Any:
        """Make a `Stream`, which has `_credit` and `_allow` at first."""
        raise NotImplementedError

    def accept(self, stream: Stream) -> None:
        """Answer OPEN: the stream is delivered. OPENED is deferrable: the service mostly answers at once, and both are
        then sent together.
        """
        stream.advance(SEND_OPENED)
        self.out.put(OPENED, stream.id, b"", True)

    def refuse(self, stream: Stream, reason: CloseReason) -> None:
        """Answer OPEN: the stream is not delivered, and no byte of it has reached an application. It is closed."""
        stream.advance(SEND_REFUSE)
        self.out.put(REFUSE, stream.id, REASON_BYTES[known_to(self.remote.reasons, reason)])
        self._forget(stream)

    def sendable(self, stream: Stream, most: int = MAX_DATA) -> int:
        """Payload bytes, up to `most`, that the stream may put into ``out`` now. 0: there is no credit or no room, or
        our direction has ended.
        """
        wanted = most if most < stream.credit else stream.credit
        return wanted if wanted and MAY_SEND >> stream.state & 1 and self.out.room(wanted) else 0

    def sent(self, stream: Stream, length: int) -> None:
        """Make a DATA frame of `length` bytes, at most what `sendable` said, that lie at ``out.pos + HEADER_SIZE``."""
        self.out.data(stream.word, length)
        stream.credit -= length

    def fin(self, stream: Stream) -> None:
        """End our direction of the stream (FIN)."""
        stream.advance(SEND_FIN)
        self.out.put(DATA_FIN, stream.id)
        if stream.state == CLOSED:
            self._forget(stream)

    def reset(self, stream: Stream, reason: CloseReason) -> None:
        """End both directions of the stream (RST). After `on_closed` no call on the sink follows for it."""
        stream.advance(SEND_RST)
        self.out.put(RST, stream.id, REASON_BYTES[reason])
        self._forget(stream)

    def consumed(self, stream: Stream, buffered: int, now: float) -> None:
        """The local socket has taken bytes of the stream; `buffered` are still in the proxy at `now`, seconds. Grants
        new credit once half of the usual credit is used up, a quarter while any stream has extra credit.
        """
        if stream.allow + buffered <= self.grant_below and MAY_RECEIVE >> stream.state & 1:
            grant = self.extra_credit.credit(stream, buffered, now) - stream.allow - buffered
            # A fast stream must not run dry before the CREDIT reaches its sender.
            self.grant_below = self.local.stream_credit // 4 * (3 if self.extra_credit.extended else 2)
            stream.allow += grant
            stream.granted += grant
            self.out.put(CREDIT, stream.id, encode_u32(grant))
            self.acknowledge()

    def ping(self, token: int) -> None:
        """Send PING, behind an ACK for what has arrived since the last one. The PONG brings `token` to `on_pong`."""
        self.acknowledge()
        self.out.put(PING, 0, encode_u64(token))

    def goaway(self, reason: CloseReason) -> None:
        """Send GOAWAY: the peer is to open no more streams. Does not set `going_away`."""
        self.out.put(GOAWAY, 0, REASON_BYTES[reason])

    def acknowledge(self) -> None:
        """Send ACK with the count of bytes received, unless it was sent already."""
        if self._acked < self.received:
            self._acked = self.received
            self.out.put(ACK, 0, encode_u64(self.received))

    def resume(self, received: int) -> None:
        """Go on over a new link: send again from offset `received` on, which the peer's HELLO has told. Raises only
        ProtocolError, and changes nothing then.
        """
        # HELLO overtakes frames that each side sends again. So it frees no lingering id, and an ACK frame is still due
        # for what it has said.
        self.out.rewind_untrusted(received)

    def close(self) -> list[Any]:
        """End the session. Returns the streams that were open, which the driver ends; their state is as it was.
        Idempotent.
        """
        streams = list(self.streams.values())
        self.streams.clear()
        self.near[:] = [None] * len(self.near)
        self.lingering.clear()
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
        word = word_at(buf, pos)
        length = word & LENGTH_MASK
        if length > self._largest(word >> KIND_SHIFT):
            raise self._malformed(word)
        return pos + HEADER_SIZE + length <= end

    def _largest(self, kind: int) -> int:
        """Bytes that the payload of such a frame may have; -1: there is no such frame."""
        if kind in (DATA, DATA_FIN):
            return MAX_DATA
        return MAX_CONTROL if OPEN <= kind <= GOAWAY else -1  # HELLO comes before a session

    def handle(self, word: int, buf: bytearray, body: int, stop: int) -> None:
        """Handle a whole frame: `word` is its header, ``buf[body:stop]`` its payload.

        Raises ProtocolError if the peer broke the specification. The session is then unusable: the driver ends it and
        its link.
        """
        kind, stream_id = word >> KIND_SHIFT, word >> KEY_SHIFT & ID_MASK
        if stop - body > self._largest(kind):
            raise self._malformed(word)
        if kind == DATA:
            self._on_data(stream_id, buf, body, stop)
        elif kind == RST:
            self._on_rst(stream_id, buf, body, stop)
        elif kind == OPEN:
            self._on_open(stream_id, buf, body, stop)
        elif kind == OPENED:
            self._on_opened(stream_id)
        elif kind == DATA_FIN:
            self._on_fin(stream_id, buf, body, stop)
        elif kind == CREDIT:
            self._on_credit(stream_id, buf, body, stop)
        elif kind == ACK:
            self._on_ack(buf, body, stop)
        elif kind == REFUSE:
            self._on_refuse(stream_id, buf, body, stop)
        elif kind == PING:
            self._on_ping(buf, body, stop)
        elif kind == PONG:
            self.on_pong(decode_u64_untrusted(piece(buf, body, stop - body), "PONG"))
        else:
            self._on_goaway(buf, body, stop)

    def _malformed(self, word: int) -> ProtocolError:
        kind = word >> KIND_SHIFT
        if self._largest(kind) < 0:
            return ProtocolError(f"unknown frame kind 0x{kind:02x}")
        return ProtocolError(f"{FrameKind(kind).name} frame of {word & LENGTH_MASK} bytes")

    def received_bytes(self, count: int) -> None:
        """Count bytes of whole frames that were handled, here or by the turn. Sends an ACK after ACK_EVERY of them."""
        self.received += count
        if self.received - self._acked >= ACK_EVERY:
            self.acknowledge()

    def _live(self, stream_id: int, kind: str) -> Any:
        """The stream that a frame is for; None: it is a late frame for a closed stream, to be ignored. Raises
        ProtocolError for any other id.
        """
        stream = self.near[stream_id >> 1 & NEAR]
        if stream is None or stream.id != stream_id:
            stream = self.streams.get(stream_id)
            if stream is None and stream_id not in self.lingering:
                raise ProtocolError(f"{kind} for stream {stream_id}, which does not exist")
        return stream

    def _on_data(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        length = stop - body
        if not length:  # would cost the peer no credit and us a system call
            raise ProtocolError(f"empty DATA on stream {stream_id}")
        stream = self._live(stream_id, "DATA")
        if stream is not None:
            stream.advance_untrusted(RECV_DATA)
            if length > stream.allow:
                raise ProtocolError(
                    f"DATA of {length} bytes on stream {stream_id}, which had {stream.allow} bytes of credit left"
                )
            stream.allow -= length
            self.on_data(stream, buf[body:stop])

    def _on_fin(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        if stop > body:
            self._on_data(stream_id, buf, body, stop)
        stream = self._live(stream_id, "FIN")
        if stream is not None:
            stream.advance_untrusted(RECV_FIN)
            stream.flowing = False
            if stream.state == CLOSED:
                self._forget(stream)
            self.on_fin(stream)

    def _on_open(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        again = stream_id <= self._newest  # if not, it is neither open nor lingering
        if stream_id & 1 == self._own or not 0 < stream_id <= self._max_id or (again and stream_id in self.streams):
            raise ProtocolError(f"OPEN of stream {stream_id}, which is not the peer's to open")
        payload = piece(buf, body, stop - body)
        call = KNOWN_OPENS.get(payload)
        if call is None:
            call = decode_open_untrusted(payload)
        if self._called >= self._most_called:
            raise ProtocolError(f"OPEN of more than the {self._most_called} streams that HELLO allowed")
        if len(self.lingering) >= self._most_lingering:
            raise ProtocolError(f"OPEN while the ends of {self._most_lingering} streams are unacknowledged")
        self._holes += again and self.lingering.pop(stream_id, None) is not None
        self._newest = max(self._newest, stream_id)
        stream = self._add(stream_id, CALLED)
        self._called += 1
        self.on_call(stream, call)

    def _on_opened(self, stream_id: int) -> None:
        stream = self._live(stream_id, "OPENED")
        if stream is not None:
            stream.advance_untrusted(RECV_OPENED)
            self.on_opened(stream)

    def _on_refuse(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        reason = _reason(piece(buf, body, stop - body), "REFUSE")
        stream = self._live(stream_id, "REFUSE")
        if stream is not None:
            stream.advance_untrusted(RECV_REFUSE)
            self._forget(stream, False)
            self.on_refused(stream, reason)

    def _on_rst(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        reason = _reason(piece(buf, body, stop - body), "RST")
        stream = self._live(stream_id, "RST")
        if stream is not None:
            stream.advance_untrusted(RECV_RST)
            self._forget(stream, False)
            self.on_rst(stream, reason)

    def _on_credit(self, stream_id: int, buf: bytearray, body: int, stop: int) -> None:
        grant = decode_u32_untrusted(piece(buf, body, stop - body), "CREDIT")
        stream = self._live(stream_id, "CREDIT")
        if stream is not None:
            if not 0 < grant <= MAX_CREDIT - stream.credit:
                raise ProtocolError(f"CREDIT of {grant} bytes on stream {stream_id}, which has {stream.credit}")
            stream.credit += grant
            stream.received_grants += grant
            self.on_credit(stream)

    def _on_ack(self, buf: bytearray, body: int, stop: int) -> None:
        offset = decode_u64_untrusted(piece(buf, body, stop - body), "ACK")
        self.out.acknowledge_untrusted(offset)
        # Only an ACK frame frees ids: it comes behind the peer's late frames. The offset that `resume` gets does not.
        self._known = max(self._known, offset)
        free = []
        for stream_id, due in self.lingering.items():
            if due > self._known:
                break
            free.append(stream_id)
        for stream_id in free:
            del self.lingering[stream_id]
        self._holes += len(free)
        if self._holes >= MOST_HOLES:
            self.lingering, self._holes = dict(self.lingering), 0

    def _on_ping(self, buf: bytearray, body: int, stop: int) -> None:
        token = decode_u64_untrusted(piece(buf, body, stop - body), "PING")
        self.acknowledge()
        self.out.put(PONG, 0, encode_u64(token))

    def _on_goaway(self, buf: bytearray, body: int, stop: int) -> None:
        self.going_away = True
        self.on_goaway(_reason(piece(buf, body, stop - body), "GOAWAY"))

    def _forget(self, stream: Stream, late_frames: bool = True) -> None:
        """The stream is closed here: let its id linger until no late frame can come, and tell the sink.

        Args:
            late_frames: False after the peer's RST or REFUSE, behind which it sends nothing more. (A peer that opens
                and resets all the time must not fill our memory with ids that it never acknowledges.)
        """
        del self.streams[stream.key]
        stream.flowing = False
        if self.near[stream.id >> 1 & NEAR] is stream:
            self.near[stream.id >> 1 & NEAR] = None
        if stream.id & 1 != self._own:
            self._called -= 1
        end = self.out.base + self.out.pos
        if late_frames and end > self._known:
            self.lingering[stream.key] = end
        self.on_closed(stream)


def _reason(payload: bytes, kind: str) -> CloseReason:
    """As `decode_reason_untrusted`, which is not compiled."""
    reason = REASONS.get(payload)
    return decode_reason_untrusted(payload, kind) if reason is None else reason
