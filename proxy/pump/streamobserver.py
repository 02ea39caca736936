"""Who is told of a stream's answer and end: the code that opened the lane, or that has to deliver it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.mux.stream import Stream
from proxy.pump.edges import Edge

L_in = TypeVar("L_in", bound=Stream, contravariant=True)
"""The lane."""


class StreamObserver(Protocol[L_in]):
    """Is told what becomes of a lane (outbound or inbound). Calls come inside turns: they must not block."""

    @property
    def service(self) -> str:
        """The service called."""

    @property
    def edge(self) -> Edge | None:
        """Who calls which service, where the lane is counted; None: nowhere yet, or it has ended."""

    @property
    def direction(self) -> StreamDirection:
        """Outbound or inbound, for the CLI."""

    def lane_opened(self, lane: L_in) -> None:
        """The peer answered OPENED: the stream is delivered."""

    def lane_refused(self, lane: L_in, reason: CloseReason) -> None:
        """The peer answered REFUSE. The lane is closed but its socket is not: take that with `Lane.surrender`."""

    def lane_unheard(self, lane: L_in) -> None:
        """The peer has never heard of the stream, nor will it: no byte can have reached anybody. As `lane_refused`, but
        nothing speaks against the same peer.
        """

    def lane_ended(self, lane: L_in, reason: CloseReason) -> None:
        """The lane is closed, and its socket too when the turn ends. Called once, but not after `lane_refused` or
        `lane_unheard`.
        """


class NullObserver:
    """Observer of a lane that has no other yet, or that has ended: so an end is told only once."""

    service = ""
    edge: Edge | None = None
    direction: StreamDirection = "outbound"

    def lane_opened(self, lane: Stream) -> None:
        """Does nothing."""

    def lane_refused(self, lane: Stream, reason: CloseReason) -> None:
        """Does nothing."""

    def lane_unheard(self, lane: Stream) -> None:
        """Does nothing."""

    def lane_ended(self, lane: Stream, reason: CloseReason) -> None:
        """Does nothing."""


NULL_OBSERVER = NullObserver()
