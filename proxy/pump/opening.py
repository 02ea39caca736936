"""What an `openings.OpeningWindow` has to know of a call, and of what carries it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Asked(Protocol):
    """What carries calls (`session.LaneSession`)."""

    @property
    def way(self) -> int:
        """Milliseconds of the shortest round trip, at least 1."""

    def ask(self, told: Callable[[], None]) -> None:
        """Call `told` when the peer has handled all that was written until now, or the link is lost (perhaps before
        this returns), or the peer takes too long to say.
        """


class Opening(Protocol):
    """A call (`lane.Lane`)."""

    @property
    def left(self) -> bool | None:
        """Whether its caller has closed; None: that cannot be told yet."""

    @property
    def bytes_received(self) -> int:
        """How much its caller was told."""
