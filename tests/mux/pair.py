"""Two sessions that talk to each other without I/O: what one side has to send is taken and fed to the other, in pieces
of any size."""

from __future__ import annotations

from typing import Any

from proxy.errors import CloseReason
from proxy.mux.frames import HEADER, HEADER_SIZE, LENGTH_MASK, MAX_ID, Open, encode_open
from proxy.mux.replay import FlushQueue, ReplayBuffer
from proxy.mux.session import MAX_CREDIT, Session, SessionSettings
from proxy.mux.sink import SessionSink
from proxy.mux.slabpool import SlabPool
from proxy.mux.stream import Stream, StreamState

MIB = 1 << 20


class Talk(Stream):
    """A stream that keeps what it is told, and what was done with it.

    Attributes:
        got: all bytes received, unread: how many of them the application has not taken.
        events: calls of its session, in order, without the data.
    """

    def __init__(self, session: Session, stream_id: int, state: StreamState, credit: int, allow: int) -> None:
        super().__init__(stream_id, state, credit, allow)
        self.got = bytearray()
        self.unread = 0
        self.events: list[str] = []
        self.service = ""


class TalkSession(Session):
    """A session of `Talk`s, which hands each call of `SessionSink` on to its side."""

    def __init__(self, side: Side, **settings: Any) -> None:
        super().__init__(**settings)
        self.side = side

    def _make(self, stream_id: int, state: int) -> Talk:
        return Talk(self, stream_id, StreamState(state), self._credit, self._allow)


def handed_on(name: str) -> Any:
    def method(session: TalkSession, *args: object) -> None:
        getattr(session.side, name)(*args)

    return method


for name in [name for name in vars(SessionSink) if name.startswith("on_")]:
    setattr(TalkSession, name, handed_on(name))


class Side:
    """One side: a session, what hears of it, and the link's bytes that are not a whole frame yet."""

    def __init__(
        self,
        *,
        dialler: bool = True,
        local: SessionSettings | None = None,
        remote: SessionSettings | None = None,
        max_id: int = MAX_ID,
        bound: int = 4 * MIB,
        slabs: SlabPool | None = None,
    ) -> None:
        self.touched = FlushQueue()
        self.slabs = slabs or SlabPool()
        self.session = TalkSession(
            self,
            dialler=dialler,
            out=ReplayBuffer(self.slabs, self.touched, [], bound),
            local=local or SessionSettings(),
            remote=remote or SessionSettings(),
            max_id=max_id,
        )
        self.calls: list[tuple[Talk, Open]] = []
        self.pongs: list[int] = []
        self.goaways: list[CloseReason] = []
        self.closed: list[int] = []
        self._part = bytearray()

    # The link

    def take(self, most: int = 1 << 40) -> bytes:
        """Up to `most` bytes that are due; they count as sent."""
        out, taken = self.session.out, bytearray()
        while len(taken) < most and (view := out.unsent_view()[: most - len(taken)]):
            taken += view
            out.sent += len(view)
        self.touched.take()
        return bytes(taken)

    def feed(self, data: bytes) -> None:
        """Bytes arrive, cut anywhere."""
        buf = bytearray(self._part + data)
        pos, end = 0, len(buf)
        while self.session.whole(buf, pos, end):
            (word,) = HEADER.unpack_from(buf, pos)
            body, pos = pos + HEADER_SIZE, pos + HEADER_SIZE + (word & LENGTH_MASK)
            self.session.handle(word, buf, body, pos)
        self.session.received_bytes(pos)
        self._part = buf[pos:]

    def lose_link(self) -> None:
        """The rest of a frame that came in part will not come any more."""
        self._part.clear()

    # The application

    def open(self, service: str = "web") -> Talk:
        """A new stream."""
        assert self.session.can_open
        return self.session.open(encode_open(Open(service)))

    def send(self, stream: Talk, data: bytes) -> int:
        """As many of `data` as one frame, credit and room take."""
        size = self.session.sendable(stream, len(data)) if data else 0
        if size:
            out = self.session.out
            out.mem[out.pos + HEADER_SIZE : out.pos + HEADER_SIZE + size] = data[:size]
            self.session.sent(stream, size)
        return size

    def read(self, stream: Talk, most: int = 1 << 40) -> None:
        """The application takes bytes out of the proxy."""
        stream.unread = max(0, stream.unread - most)
        self.session.consumed(stream, stream.unread, now=0.0)

    # What the session tells

    def on_call(self, stream: Talk, call: Open) -> None:
        stream.service = call.service
        self.calls.append((stream, call))

    def on_opened(self, stream: Talk) -> None:
        stream.events.append("opened")

    def on_refused(self, stream: Talk, reason: CloseReason) -> None:
        stream.events.append(f"refused {reason.label}")

    def on_data(self, stream: Talk, data: bytearray) -> None:
        stream.got += data
        stream.unread += len(data)

    def on_fin(self, stream: Talk) -> None:
        stream.events.append("fin")

    def on_rst(self, stream: Talk, reason: CloseReason) -> None:
        stream.events.append(f"rst {reason.label}")

    def on_credit(self, stream: Talk) -> None:
        stream.events.append("credit")

    def on_pong(self, token: int) -> None:
        self.pongs.append(token)

    def on_goaway(self, reason: CloseReason) -> None:
        self.goaways.append(reason)

    def on_closed(self, stream: Talk) -> None:
        self.closed.append(stream.id)


def check(side: Side) -> None:
    """A valid state, whatever was said."""
    session = side.session
    for stream_id, stream in session.streams.items():
        assert stream.id == stream_id
        assert stream.state != StreamState.CLOSED
        assert 0 <= stream.credit <= MAX_CREDIT
        assert 0 <= stream.allow <= session.local.stream_credit
        assert stream_id not in session.lingering
    called = sum(stream_id % 2 != session._first_id % 2 for stream_id in session.streams)
    assert called == session._called <= session.local.max_streams
    assert list(session.lingering.values()) == sorted(session.lingering.values())
    assert 0 <= session.out.acked <= session.out.sent <= session.out.end


class Pair:
    """Side a dialled, side b accepted."""

    def __init__(
        self,
        *,
        a: SessionSettings | None = None,
        b: SessionSettings | None = None,
        max_id: int = MAX_ID,
        bound: int = 4 * MIB,
    ) -> None:
        a, b = a or SessionSettings(), b or SessionSettings()
        self.a = Side(dialler=True, local=a, remote=b, max_id=max_id, bound=bound)
        self.b = Side(dialler=False, local=b, remote=a, max_id=max_id, bound=bound)

    def cross(self) -> None:
        """Carry everything over, both ways, until nobody has anything to say."""
        while (there := self.a.take()) + (back := self.b.take()):
            self.b.feed(there)
            self.a.feed(back)

    def relink(self) -> None:
        """The link is lost with all that is under way, and there is another one."""
        for side in (self.a, self.b):
            side.lose_link()
        received = self.a.session.received, self.b.session.received
        self.a.session.resume(received[1])
        self.b.session.resume(received[0])

    def acknowledge(self) -> None:
        """Carry everything over, acknowledgements of all of it too."""
        self.cross()
        self.a.session.acknowledge()
        self.b.session.acknowledge()
        self.cross()

    def open(self, service: str = "web") -> tuple[Talk, Talk]:
        """A stream of a, delivered by b: both ends."""
        mine = self.a.open(service)
        self.cross()
        theirs = self.b.calls[-1][0]
        self.b.session.accept(theirs)
        self.cross()
        return mine, theirs
