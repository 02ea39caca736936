"""What links with each peer have done so far. It outlives the pool: who leaves the map and comes back goes on."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Literal, Protocol

from control.base.exposition import OTHER
from control.base.histogram import Histogram
from proxy.errors import CloseReason
from proxy.pump.seriesbudget import Named, SeriesBudget
from proxy.pump.session import LaneSession

__all__ = ["HANDSHAKE_SECONDS", "PeerCount", "PeerCounts"]

PEER_SERIES = 36
"""Of each peer, about: 12 of them are a histogram's."""
HANDSHAKE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
"""Bounds: from TCP and HELLO on one segment to links.dial_timeout."""
Direction = Literal["outbound", "inbound"]
Outcome = Literal["ok", "failed"]


class Avoiding(Protocol):
    """Knows how many handshakes streams did not have to wait for, as `pool.usage.PoolUsage`."""

    avoided: int


class PeerCount:
    """Of one peer.

    Attributes:
        sent, received, resent: bytes; frames, sends, retransmits: counts; all of sessions that are over.
        resumed: how often a session has gone on over another link.
        ended: links that have ended, by close reason.
        handshakes: by direction (who has dialled: this host, outbound, or the peer) and outcome.
        handshake_seconds: of those dialled here that came off.
    """

    def __init__(self) -> None:
        self.sent = self.received = self.resent = self.frames = self.sends = self.retransmits = self.resumed = 0
        self.ended: dict[CloseReason, int] = {}
        self.handshakes: dict[tuple[Direction, Outcome], int] = {}
        self.handshake_seconds = Histogram(HANDSHAKE_SECONDS)
        self._usages: dict[str, Avoiding] = {}
        self._avoided = 0

    @property
    def avoided(self) -> int:
        """Handshakes that streams did not have to wait for."""
        return self._avoided + sum(usage.avoided for usage in self._usages.values())

    def use(self, peer: str, usage: Avoiding) -> None:
        """The peer has this pool from now on. (As OTHER several peers are counted.)"""
        if peer in self._usages:
            self._avoided += self._usages[peer].avoided
        self._usages[peer] = usage

    def shaken(self, direction: Direction, outcome: Outcome, seconds: float | None = None) -> None:
        """A handshake is over."""
        self.handshakes[direction, outcome] = self.handshakes.get((direction, outcome), 0) + 1
        if seconds is not None:
            self.handshake_seconds.observe(seconds)

    def link_ended(self, reason: CloseReason) -> None:
        """A link has ended."""
        self.ended[reason] = self.ended.get(reason, 0) + 1

    def session_over(self, session: LaneSession) -> None:
        """A session is about to end; called once."""
        out = session.out
        self.sent += out.sent + out.resent
        self.received += session.received
        self.resent += out.resent
        self.frames += out.frames
        self.sends += out.sends
        self.retransmits += session.retransmits


class PeerCounts:
    """Of all peers.

    Args:
        budget: what all together may have; clock: seconds (monotonic).

    Attributes:
        of: by the peers' names, made on first use.
        strangers: handshakes that failed before anybody was known to be a peer.
    """

    def __init__(self, budget: SeriesBudget | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.of: Named[str, PeerCount] = Named(
            budget or SeriesBudget(), PeerCount, PEER_SERIES, lambda name: OTHER, clock
        )
        self.strangers = 0

    def refused(self) -> None:
        """A handshake that somebody else has begun has failed."""
        self.strangers += 1
