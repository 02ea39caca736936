"""What an `openings.OpeningWindow` has to know of a call, and of what carries it, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

LEAST, MOST = 2, 128
"""Calls, between which a window's size is. More than MOST bring nothing: the peer works on them one by one. (With 64, a
crowd of 128 callers came to their turn a sixth more slowly: to hold them up costs, too.)"""
ALL = 2 * MOST
"""Calls of all upstreams at one peer; above LEAST, one has no more than as many as are left for others."""
TURNS = 8
"""Turns of the loop, at least, that filling a window takes: many new calls in one delay the messages of open ones."""


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

    def left(self) -> bool | None:
        """Whether its caller has closed; None: that cannot be told yet."""

    @property
    def bytes_received(self) -> int:
        """How much its caller was told."""
