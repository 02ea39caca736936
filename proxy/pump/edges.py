"""Who talks to whom: an *edge* is a caller and a service, with the other host, and what passes between them.

Nothing is counted for a message. A stream adds to its edge when it begins and when it has ended; what the open ones
have moved so far, whoever reads the edges asks them (`proxy.telemetry.edgeview`).

How many there are is bounded, whatever callers and peers say their names are: beyond the bounds callers are counted
together as OTHER, and then services and hosts are, too. Edges that nothing has used for an hour are forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet

from control.api.messages import StreamDirection
from control.base.exposition import OTHER
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.pump.edgetally import EdgeTally

MOST = 2000
"""Edges of callers that are told apart: a host has dozens. Each is about half a kilobyte."""
MOST_OF_PEER = 256
"""Those that one peer's callers may have: it says who they are."""
QUIET = 3600.0
"""Seconds after which an unused edge is forgotten."""


class Edge(EdgeTally):
    """Args:
        caller: as `caller_name` names it.
        peer: the host that has called, or that was called; None: this one, or (`direction` outbound) no host took it.

    Attributes:
        failed: streams that were not delivered, or that a proxy ended.
        reason: of the last that failed.
        used: `opened` and `ended` when edges were last swept, and since when they are the same.
    """

    __slots__ = ("caller", "direction", "failed", "peer", "reason", "service", "used")

    def __init__(self, direction: StreamDirection, caller: str, service: str, peer: str | None) -> None:
        super().__init__()
        self.direction, self.caller, self.service, self.peer = direction, caller, service, peer
        self.failed = 0
        self.reason: CloseReason | None = None
        self.used = (-1, -1, 0.0)

    @property
    def open(self) -> int:
        """Streams open now."""
        return self.opened - self.ended

    def fail(self, reason: CloseReason, now: float) -> None:
        """One of its streams has failed (`EdgeTally`)."""
        self.failed += 1
        self.reason = reason
        if self.failing_since is None:
            self.failing_since = now


class EdgeHolder(Protocol):
    """Keeps edges that it has found. It can be referred to weakly."""

    def forget_edges(self) -> None:
        """Find them again from now on: some are no longer the ones that are read."""


class Edges:
    """All edges of this host."""

    def __init__(self) -> None:
        self._all: dict[tuple[StreamDirection, str, str, str | None], Edge] = {}
        self._of_peer = Counter[str | None]()
        self._holders = WeakSet[EdgeHolder]()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Edge]:
        return iter(list(self._all.values()))

    def find(self, direction: StreamDirection, caller: str, service: str, peer: str | None) -> Edge:
        """The edge, which is made on first use. It stays in use until `sweep` tells its holders."""
        edge = self._all.get((direction, caller, service, peer))
        if edge is not None:
            return edge
        if len(self._all) >= MOST or (direction == "inbound" and self._of_peer[peer] >= MOST_OF_PEER):
            caller = OTHER
        if len(self._all) >= 2 * MOST:
            service, peer = OTHER, None
        key = (direction, caller, service, peer)
        if key not in self._all:
            self._all[key] = Edge(*key)
            if direction == "inbound":
                self._of_peer[peer] += 1
        return self._all[key]

    def kept_by(self, holder: EdgeHolder) -> None:
        """Tell it when edges are forgotten, for as long as there is one."""
        self._holders.add(holder)

    def sweep(self, now: float) -> None:
        """Forget the edges that have no open stream, and had none for QUIET."""
        gone = []
        for key, edge in self._all.items():
            if edge.used[:2] != (edge.opened, edge.ended) or edge.opened != edge.ended:
                edge.used = (edge.opened, edge.ended, now)
            elif now - edge.used[2] >= QUIET:
                gone.append(key)
        for key in gone:
            del self._all[key]
            if key[0] == "inbound":
                self._of_peer[key[3]] -= 1
        if gone:
            for holder in self._holders:
                holder.forget_edges()


def caller_name(call: Open) -> str:
    """What a caller is called: the service that it belongs to, where that is known, else its user."""
    if call.caller:
        return call.caller
    return "unknown" if call.uid == UNKNOWN_UID else f"uid {call.uid}"
