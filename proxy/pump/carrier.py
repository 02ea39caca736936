"""Where a session meets the link that carries it, and a lane its session. Neither knows more of the other than is here,
so that link.py is built on session.py, session.py on lane.py, and lane.py on this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

from proxy.errors import CloseReason
from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import Session, SessionSettings
from proxy.mux.sink import SessionSink
from proxy.mux.stream import Stream, StreamState
from proxy.pump.loop import Flusher, Pump

S = TypeVar("S", bound=Stream)
S_in = TypeVar("S_in", bound=Stream, contravariant=True)


class Carrier(Flusher, Protocol):
    """A link, as the session that it carries sees it: `flush` and `doom`.

    Attributes:
        local_address, remote_address: its two ends, ``host:port``.
        rtt: of the last ping, seconds; its session sets it.
    """

    local_address: str
    remote_address: str
    rtt: float | None

    def doom(self, reason: CloseReason, detail: str = "") -> None:
        """End it when the turn ends. The first reason counts. Outside a turn, `Pump.settle` must follow."""


class UsageObserver(Protocol[S_in]):
    """Whoever learns from the streams (the pool). Called inside turns: must not take long.

    Attributes:
        notable: bytes that a stream must have moved for its end to be told.
    """

    notable: int

    def began(self) -> None:
        """A session without streams is about to have one."""

    def ended(self) -> None:
        """Its last stream is not open any more."""

    def stream_ended(self, lane: S_in) -> None:
        """A notable stream is not open any more; its owner has not been told yet."""


class CarriedSession(Session[S]):
    """A session as its lanes see it: what they share beside the session of mux/.

    Args:
        name: for logs and the CLI; peer: the peer's host name.
        usage: learns from the streams; the others are as in `Session`.

    Attributes:
        budget: bytes that the peer's lanes may buffer.
        link: that which carries it, or did last; suspended: whether it has none.
        waiting: lanes that wait for room in the out-buffer: their ``resume()`` is called once that has drained, or the
            peer has acknowledged something.
    """

    link: Carrier

    def __init__(
        self,
        pump: Pump,
        *,
        name: str,
        peer: str,
        usage: UsageObserver[S],
        dialler: bool,
        out: ReplayBuffer,
        sink: SessionSink[S],
        stream_type: Callable[[Self, int, StreamState, int, int], S],
        local: SessionSettings,
        remote: SessionSettings,
    ) -> None:
        super().__init__(dialler=dialler, out=out, sink=sink, stream_type=stream_type, local=local, remote=remote)
        self.pump, self.name, self.peer, self.usage = pump, name, peer, usage
        self.budget = pump.budget.account(peer)
        self.waiting: dict[S, None] = {}
        self.suspended = False

    def send_now(self) -> None:
        """Send in the middle of a turn what has been written so far."""
        self.link.flush()
