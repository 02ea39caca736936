"""What the loop calls for the descriptors that it knows, and a session for its link."""

from __future__ import annotations

from typing import Protocol

from proxy.errors import CloseReason


class Watcher(Protocol):
    """What the pump calls for a descriptor that is registered with it."""

    def ready(self, mask: int) -> None:
        """The epoll reported `mask`; 0: `Pump.again` was called. Runs inside a turn: must not block or take long."""

    def crashed(self) -> None:
        """`ready` raised an unexpected exception, which has been logged: end the stream or link that the
        descriptor belongs to.
        """

    def abandoned(self) -> None:
        """The pump shuts down, and the descriptor is still registered: end what it belongs to, if nobody else does."""


class Carrier(Protocol):
    """A link, as the session that it carries sees it.

    Attributes:
        local_address, remote_address: its two ends, ``host:port``.
        rtt: round-trip time of the last ping, seconds; None before the first answer. The session sets it.
    """

    local_address: str
    remote_address: str
    rtt: float | None

    def flush(self) -> None:
        """Send what can be sent without waiting."""

    def doom(self, reason: CloseReason, detail: str = "") -> None:
        """End the link when the turn ends; only the first reason counts. Outside a turn, call `Pump.settle` then."""
