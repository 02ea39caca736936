"""One stream of a session: its states, as a table, and its credit.

Theory of operation
===================

Each side of a stream keeps one of eight states. Two rules make the table:

Rule 1: each direction of a stream ends exactly once, by FIN (all bytes were sent) or, for both directions together, by
RST or REFUSE.

Rule 2: the side that opens a stream may send at once; the side that is called first answers OPENED or REFUSE. REFUSE
promises that no byte has reached an application, so that the opener may try another host. After OPENED only RST can end
a stream early.

Nobody waits for anybody: a stream is CLOSED here as soon as both directions have ended *as seen from here*. The other
side may not know yet, so frames for it may still be under way. The session recognises them: it remembers a closed
stream's id until the peer has acknowledged the last frame sent on it (`Session.lingering`). That acknowledgement comes
behind everything that the peer sent before it learnt of the end. So it is also safe then to use the id again, and there
is neither a reply to RST nor a timer. (Behind its own RST or REFUSE the peer sends nothing more, so the side that
receives one remembers nothing.)

An event that has no entry in the table is a bug if it came from our side and a ProtocolError if it came from the peer.
"""

from __future__ import annotations

import enum

from proxy.errors import ProtocolError
from proxy.mux.frames import KEY_SHIFT


class StreamState(enum.IntEnum):
    """State of a stream as seen from this side."""

    CALLING = enum.auto()
    """We sent OPEN and perhaps early bytes; no answer yet."""
    CALLING_FIN = enum.auto()
    """The same, and we have sent our FIN."""
    CALLED = enum.auto()
    """We received OPEN and have not answered; early bytes may come."""
    CALLED_FIN = enum.auto()
    """The same, and the peer's FIN has come."""
    OPEN = enum.auto()
    FIN_SENT = enum.auto()
    FIN_RECEIVED = enum.auto()
    CLOSED = enum.auto()

    @property
    def label(self) -> str:
        """The name as logs and CLI show it."""
        return self.name.lower()


class StreamEvent(enum.IntEnum):
    """What can happen to a stream: SEND_* is done by us, RECV_* by the peer."""

    SEND_OPENED = enum.auto()
    SEND_REFUSE = enum.auto()
    SEND_FIN = enum.auto()
    SEND_RST = enum.auto()
    RECV_OPENED = enum.auto()
    RECV_REFUSE = enum.auto()
    RECV_DATA = enum.auto()
    RECV_FIN = enum.auto()
    RECV_RST = enum.auto()


# By these names they cost nothing to say: an enum of Python 3.11 takes 600 instructions to find a member.
CALLING, CALLING_FIN, CALLED, CALLED_FIN, OPEN, FIN_SENT, FIN_RECEIVED, CLOSED = StreamState
SEND_OPENED, SEND_REFUSE, SEND_FIN, SEND_RST = list(StreamEvent)[:4]
RECV_OPENED, RECV_REFUSE, RECV_DATA, RECV_FIN, RECV_RST = list(StreamEvent)[4:]

TABLE: dict[StreamState, dict[StreamEvent, StreamState]] = {
    CALLING: {
        SEND_FIN: CALLING_FIN,
        SEND_RST: CLOSED,
        RECV_OPENED: OPEN,
        RECV_REFUSE: CLOSED,
    },
    CALLING_FIN: {
        SEND_RST: CLOSED,
        RECV_OPENED: FIN_SENT,
        RECV_REFUSE: CLOSED,
    },
    CALLED: {
        SEND_OPENED: OPEN,
        SEND_REFUSE: CLOSED,
        RECV_DATA: CALLED,
        RECV_FIN: CALLED_FIN,
        RECV_RST: CLOSED,
    },
    CALLED_FIN: {
        SEND_OPENED: FIN_RECEIVED,
        SEND_REFUSE: CLOSED,
        RECV_RST: CLOSED,
    },
    OPEN: {
        SEND_FIN: FIN_SENT,
        SEND_RST: CLOSED,
        RECV_DATA: OPEN,
        RECV_FIN: FIN_RECEIVED,
        RECV_RST: CLOSED,
    },
    FIN_SENT: {
        SEND_RST: CLOSED,
        RECV_DATA: FIN_SENT,
        RECV_FIN: CLOSED,
        RECV_RST: CLOSED,
    },
    FIN_RECEIVED: {
        SEND_FIN: CLOSED,
        SEND_RST: CLOSED,
        RECV_RST: CLOSED,
    },
    CLOSED: {},
}


def bits(*states: StreamState) -> int:
    """A set of states: bit n stands for state n."""
    return sum(1 << state for state in states)


MAY_SEND = bits(CALLING, OPEN, FIN_RECEIVED)
"""States in which this side may still send DATA."""
MAY_RECEIVE = bits(*(state for state, row in TABLE.items() if RECV_DATA in row))
STEPS = bytes(
    TABLE[StreamState(state)].get(StreamEvent(event), 0) if state and 0 < event <= len(StreamEvent) else 0
    for state in range(len(StreamState) + 1)
    for event in range(16)
)
"""The same table: the next state at ``state << 4 | event``; 0: there is no such step."""
assert len(StreamEvent) < 16


class Stream:
    """State and credit of one stream. The driver's subclass (`pump.lane.Lane`) adds the local socket and the session.

    Attributes:
        key: the id as the number of Python's that dicts have it by. Made once: they find the same object sooner.
        state: one of `StreamState`, as a plain number.
        credit: bytes that the peer still allows us to send; never negative.
        allow: bytes that we still allow the peer to send; never negative.
        received_grants, granted: all bytes of credit ever received and ever granted, the initial ones included.
        granted_at: when we last granted credit, seconds; 0: not yet.
        word: header word of a plain DATA frame of this stream, without the length.
        flowing: whether incoming DATA only has to be written to the local socket. The driver sets it, and takes it back
            while the socket is full; the session takes it back when the peer's direction has ended.
    """

    __slots__ = ("allow", "credit", "flowing", "granted", "granted_at", "id", "key", "received_grants", "state", "word")

    def __init__(self, stream_id: int, state: int, credit: int, allow: int) -> None:
        self.begin(stream_id, state, credit, allow)

    def begin(self, stream_id: int, state: int, credit: int, allow: int) -> None:
        """What `__init__` does. (A subclass calls it instead: compiled, that costs a tenth.)"""
        self.id = self.key = stream_id
        self.state = state
        self.credit = self.received_grants = credit
        self.allow = self.granted = allow
        self.granted_at = 0.0
        self.flowing = False
        self.word = stream_id << KEY_SHIFT

    def advance(self, event: int) -> None:
        """Take one step in the table for what *we* do. Raises KeyError (a bug) if the table has no such step."""
        state = STEPS[self.state << 4 | event]
        if not state:
            raise KeyError(StreamEvent(event))
        self.state = state

    def advance_untrusted(self, event: int) -> None:
        """Take one step in the table for what the peer did. Raises only ProtocolError: the table has no such step."""
        state = STEPS[self.state << 4 | event]
        if not state:
            label = StreamState(self.state).label
            raise ProtocolError(f"{StreamEvent(event).name[5:]} on stream {self.id}, which is {label}")
        self.state = state

    @property
    def bytes_moved(self) -> int:
        """Payload bytes sent and received so far."""
        return self.moved()

    def moved(self) -> int:
        """As `bytes_moved`, which is not compiled to a plain call."""
        return self.received_grants - self.credit + self.granted - self.allow

    @property
    def bytes_sent(self) -> int:
        """Payload bytes sent so far: all credit ever received less what is left of it. So the fast path has no second
        counter to keep.
        """
        return self.received_grants - self.credit

    @property
    def bytes_received(self) -> int:
        """Payload bytes received so far."""
        return self.granted - self.allow
