"""What the page of a proxy shows. How it is served: `control.base.page`."""

from __future__ import annotations

import time

from msgspec import Struct

from control.api.messages import Discovery, EdgeInfo, Ejection, LinkInfo, PeerStatus
from control.api.page import MOST_PAGE_ROWS, PageProblem, Wanted
from control.base.page.serve import PageServer
from control.base.version import VERSION
from proxy.telemetry.page.finding import ProblemFinder

FRESH = 0.5
"""Seconds for which an answer is good enough for whoever asks next."""


class PageState(Struct, frozen=True, kw_only=True):
    """All that the page shows. ``at``: seconds since 1970; ``more_…``: how many there are beyond those that are here,
    the busiest; ``all_edges``: also those that nobody looks for."""

    at: float
    host: str
    version: str
    uptime_s: float
    streams: int
    opened: int
    failed: int
    memory_used: int
    memory_limit: int
    handshakes_avoided: int
    draining: bool
    control: Discovery | None
    problems: list[PageProblem]
    peers: list[PeerStatus]
    links: list[LinkInfo]
    ejected: list[Ejection]
    edges: list[EdgeInfo]
    more_edges: int
    all_edges: int
    more_links: int


def page(finder: ProblemFinder) -> PageServer:
    """The page of a proxy."""

    async def show(query: str) -> PageState:
        return await _read(finder, Wanted.of(query))

    return PageServer(show, FRESH)


async def _read(finder: ProblemFinder, wanted: Wanted) -> PageState:
    found = await finder.find()
    counts, edges = found.counts, wanted.edges(found.edges)
    return PageState(
        at=time.time(),
        host=counts.host,
        version=VERSION,
        uptime_s=counts.uptime_s,
        streams=counts.streams,
        opened=counts.opened,
        failed=counts.failed,
        memory_used=counts.memory_used,
        memory_limit=counts.memory_limit,
        handshakes_avoided=counts.handshakes_avoided,
        draining=counts.draining,
        control=counts.control,
        problems=found.problems,
        peers=found.peers,
        links=found.links[:MOST_PAGE_ROWS],
        ejected=found.ejected,
        edges=edges[:MOST_PAGE_ROWS],
        more_edges=max(0, len(edges) - MOST_PAGE_ROWS),
        all_edges=len(found.edges),
        more_links=max(0, len(found.links) - MOST_PAGE_ROWS),
    )
