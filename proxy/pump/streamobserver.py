"""Who is told of a stream's answer and end: the code that opened the lane, or that has to deliver it."""

from __future__ import annotations

from typing import Any

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.pump.edges import Edge


class StreamObserver:
    """Is told what becomes of a lane (outbound or inbound). Calls come inside turns: they must not block. This one does
    nothing.

    Attributes:
        service: the service called.
        edge: who calls which service, where the lane is counted; None: nowhere yet, or it has ended.
        direction: outbound or inbound, for the CLI.
    """

    __slots__ = ()
    service = ""
    edge: Edge | None = None
    direction: StreamDirection = "outbound"

    def lane_opened(self, lane: Any) -> None:
        """The peer answered OPENED: the stream is delivered."""

    def lane_refused(self, lane: Any, reason: CloseReason) -> None:
        """The peer answered REFUSE. The lane is closed but its socket is not: take that with `Lane.surrender`."""

    def lane_unheard(self, lane: Any) -> None:
        """The peer has never heard of the stream, nor will it: no byte can have reached anybody. As `lane_refused`, but
        nothing speaks against the same peer.
        """

    def lane_ended(self, lane: Any, reason: CloseReason) -> None:
        """The lane is closed, and its socket too when the turn ends. Called once, but not after `lane_refused` or
        `lane_unheard`.
        """


NULL_OBSERVER = StreamObserver()
"""Observer of a lane that has no other yet, or that has ended: so an end is told only once."""
