"""Finds what is wrong on this host, and since when: for the page, and for the control server, which is told of it.

What does not know its own age (a host that is down, say) is looked for every second, whether anybody asks or not, so
that it is known since when. That costs microseconds for each peer. The rest is read when somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import trio

from control.api.mesh import ToldProblem
from control.api.messages import EdgeInfo, Ejection, LinkInfo, PeerStatus
from control.api.page import PageProblem
from control.base.page.since import Since
from proxy.telemetry.page.changes import Changes
from proxy.telemetry.page.problems import Found, Seen, lasting, problems
from proxy.telemetry.view import ProxyCounts, ProxyView

EVERY = 1.0
"""Seconds between two looks."""


class Finding(NamedTuple):
    """What was read, and the problems that were found there."""

    counts: ProxyCounts
    peers: list[PeerStatus]
    links: list[LinkInfo]
    edges: list[EdgeInfo]
    ejected: list[Ejection]
    problems: list[PageProblem]


class ProblemFinder:
    """Args:
    now: seconds since 1970.

    Attributes:
        changed: called when a look has found something that the one before had not, or no more: of what is looked for
            every second, links that are lost or flap included.
    """

    def __init__(self, view: ProxyView, now: Callable[[], float] = time.time) -> None:
        self._view, self._now = view, now
        self._changes = Changes(monotonic)
        self._noticed, self._told = Since(now), Since(now)
        self._last: set[tuple[str, str]] = set()
        self.changed: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Look every EVERY seconds, until cancelled."""
        while True:
            self.look()
            await trio.sleep(EVERY)

    def look(self) -> None:
        """Notice what has begun since the last look."""
        peers = self._view.peers()
        self._changes.look(peers)
        seen = self._seen(self._view.counts(), peers, [], [], [])
        found = [each.key for each in lasting(seen)]
        self._noticed.of([(key, None) for key in found])
        lost = {("link", peer.name) for peer in peers if peer.suspended or peer.name in self._changes.flapping}
        before, self._last = self._last, lost.union(found)
        if self._last != before:
            self.changed()

    async def find(self) -> Finding:
        """What is wrong now. Takes as long as the edges do (`ProxyView.edges`)."""
        edges = (await self._view.edges()).edges
        counts, peers = self._view.counts(), self._view.peers()
        links, ejected = self._view.links(), self._view.ejected()
        self._changes.look(peers)
        found = problems(self._seen(counts, peers, links, edges, ejected))
        times = self._told.of([(each.key, each.since) for each in found], self._noticed.times)
        told = [_shown(each, since) for each, since in zip(found, times, strict=True)]
        told.sort(key=lambda each: each.since)  # causes come before what follows from them
        return Finding(counts, peers, links, edges, ejected, told)

    async def told(self) -> tuple[ToldProblem, ...]:
        """The same for the control server, which has a clock of its own."""
        found, now = (await self.find()).problems, self._now()
        return tuple(
            ToldProblem(kind=each.kind, name=each.name, text=each.text, lasts_s=round(max(0.0, now - each.since), 1))
            for each in found
        )

    def _seen(
        self,
        counts: ProxyCounts,
        peers: list[PeerStatus],
        links: list[LinkInfo],
        edges: list[EdgeInfo],
        ejected: list[Ejection],
    ) -> Seen:
        return Seen(
            host=counts.host,
            peers=peers,
            links=links,
            edges=edges,
            ejected=ejected,
            offered=self._view.offered(),
            missing=counts.missing,
            control=counts.control,
            memory_used=counts.memory_used,
            memory_limit=counts.memory_limit,
            flapping=self._changes.flapping,
        )


def _shown(found: Found, since: float) -> PageProblem:
    return PageProblem(kind=found.kind, name=found.name, text=found.text, since=since)
