"""What a stream adds to its edge (`proxy.pump.edges`) when it begins and when it has ended."""

from __future__ import annotations

from proxy.core.syscalls import now
from proxy.errors import OF_APPLICATIONS, CloseReason

_FINISHED = CloseReason.FINISHED


class EdgeTally:
    """Of the streams between a caller and a service.

    Attributes:
        opened, ended: streams.
        sent, received: payload bytes of those that have ended, as the caller sees them or, inbound, the service.
        failing_since: when the first has failed since one was delivered; seconds (monotonic), None: none has.
    """

    __slots__ = ("ended", "failing_since", "opened", "received", "sent")

    def __init__(self) -> None:
        self.opened = self.ended = self.sent = self.received = 0
        self.failing_since: float | None = None

    def over(self, reason: CloseReason, sent: int, received: int) -> None:
        """One of its streams has ended."""
        self.ended += 1
        self.sent += sent
        self.received += received
        if reason is not _FINISHED and reason not in OF_APPLICATIONS:
            self.fail(reason, now())

    def fail(self, reason: CloseReason, now: float) -> None:
        """One of its streams has failed; `ended` is counted by whoever calls this."""
        raise NotImplementedError
