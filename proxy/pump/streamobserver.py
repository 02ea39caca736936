"""Who a lane belongs to, besides its session: whoever opened it or has to deliver it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.mux.stream import Stream

L_in = TypeVar("L_in", bound=Stream, contravariant=True)
"""The lane."""


class StreamObserver(Protocol[L_in]):
    """Whoever opened the lane or has to deliver it (outbound or inbound)."""

    @property
    def service(self) -> str:
        """The service called."""

    @property
    def direction(self) -> StreamDirection:
        """For the CLI: outbound or inbound."""

    def lane_opened(self, lane: L_in) -> None:
        """The far side delivered the stream."""

    def lane_refused(self, lane: L_in, reason: CloseReason) -> None:
        """The far side did not; the lane is closed, its socket is not: take it with `Lane.surrender`."""

    def lane_ended(self, lane: L_in, reason: CloseReason) -> None:
        """The lane is closed, and so is its socket if it had one. Called exactly once, unless it was refused."""


class NullObserver:
    """Owner of a lane that nobody has taken yet, or that has ended, so that an end is told once only."""

    service = ""
    direction: StreamDirection = "outbound"

    def lane_opened(self, lane: Stream) -> None:
        """Nobody is told."""

    def lane_refused(self, lane: Stream, reason: CloseReason) -> None:
        """Nobody is told."""

    def lane_ended(self, lane: Stream, reason: CloseReason) -> None:
        """Nobody is told."""


NULL_OBSERVER = NullObserver()
