"""What the page of a control server shows: the whole mesh. How it is served: `control.base.page`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

import trio
from msgspec import Struct

from control.api.mesh import HostEdges, HostRecord
from control.api.messages import EdgeInfo
from control.api.page import MOST_PAGE_ROWS, PageProblem, Wanted
from control.base.page.serve import PageServer
from control.base.page.since import Since
from control.base.version import VERSION
from control.server.edges import STALE, MeshEdges, MeshTold
from control.server.feed import MapFeed
from control.server.meshproblems import GoneHost, SeenMesh, mesh_problems
from control.server.mirror import VanishedHost

__all__ = ["MeshPage", "MeshPageState", "PageHost", "PageService"]

FRESH = 2.0
"""Seconds for which an answer is good enough: hosts tell every few seconds, and other servers are asked each time."""
SETTLING = 10.0
"""Seconds for which a host may have told nothing: it first does so a third of its lease after it has come."""
MOST_NAMED = 5
"""Hosts that are named as those of a service."""


class PageHost(Struct, frozen=True, kw_only=True):
    """A host of the map. ``told_s``: how long ago it told of its edges; None: it has not. ``rate``: bytes a second of
    the edges that begin or end there, ``failing`` how many of them fail; ``problems``: how many it tells."""

    name: str
    address: str
    version: str
    services: int
    streams: int
    rate: float
    failing: int
    problems: int
    told_s: float | None


class PageService(Struct, frozen=True, kw_only=True):
    """A service: how many hosts offer it, some of them by name, and what its edges say."""

    name: str
    offered_by: int
    hosts: tuple[str, ...]
    callers: int
    streams: int
    rate: float
    failing: int


class MeshPageState(Struct, frozen=True, kw_only=True):
    """All that the page shows. ``at``: seconds since 1970; ``more_…``: how many there are beyond those that are here,
    the busiest; ``all_…``: also those that nobody looks for."""

    at: float
    mesh: str
    server: str
    version: str
    uptime_s: float
    all_hosts: int
    all_services: int
    all_edges: int
    streams: int
    problems: list[PageProblem]
    hosts: list[PageHost]
    more_hosts: int
    services: list[PageService]
    more_services: int
    edges: list[EdgeInfo]
    more_edges: int


class MeshPage:
    """Args:
    feed: returns the map; None: the store cannot be watched.
    gone: returns the hosts that have vanished.
    now: seconds since 1970.
    """

    def __init__(
        self,
        server: str,
        mesh: str,
        edges: MeshEdges,
        feed: Callable[[], MapFeed | None],
        gone: Callable[[], Iterable[VanishedHost]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._mesh, self._edges = server, mesh, edges
        self._feed, self._gone, self._now = feed, gone, now
        self._since, self._began = Since(now), monotonic()
        self._missed: dict[str, float] = {}
        self.server = PageServer(self._read, FRESH)

    async def _read(self, query: str) -> MeshPageState:
        feed = self._feed()
        hosts = {} if feed is None else dict(feed.hosts)
        told = await self._edges.told(list(hosts))
        silent = self._silent(told.silent)
        seen = SeenMesh(
            self._server,
            None if feed is None else hosts,
            {host: each for host, each in told.found.items() if host in hosts},
            [GoneHost(each.record, self._now() - each.at) for each in self._gone()],
            silent,
            told.unanswered,
        )
        # Tenths of a second in a large mesh, for which hosts should not have to wait.
        return await trio.to_thread.run_sync(self._put_together, Wanted.of(query), hosts, told, seen)

    def _silent(self, missing: Iterable[str]) -> list[str]:
        """Those that should have told by now: hosts do so a while after this server has begun, or they have come."""
        now = monotonic()
        self._missed = {host: self._missed.get(host, now) for host in missing}
        if now - self._began <= STALE:
            return []
        return [host for host, since in self._missed.items() if now - since >= SETTLING]

    def _put_together(
        self, wanted: Wanted, hosts: Mapping[str, HostRecord], told: MeshTold, seen: SeenMesh
    ) -> MeshPageState:
        every = told.edges
        shown, problems = wanted.edges(every), self._problems(seen)
        own = Counter(name for each in problems for name in each.told_by)
        found_hosts = _hosts(hosts, every, told.found, own, wanted)
        services = _services(hosts, every, wanted)
        return MeshPageState(
            at=self._now(),
            mesh=self._mesh,
            server=self._server,
            version=VERSION,
            uptime_s=monotonic() - self._began,
            all_hosts=len(hosts),
            all_services=len({offer.name for record in hosts.values() for offer in record.services}),
            all_edges=len(every),
            streams=sum(edge.streams for edge in every),
            problems=problems,
            hosts=found_hosts[:MOST_PAGE_ROWS],
            more_hosts=max(0, len(found_hosts) - MOST_PAGE_ROWS),
            services=services[:MOST_PAGE_ROWS],
            more_services=max(0, len(services) - MOST_PAGE_ROWS),
            edges=shown[:MOST_PAGE_ROWS],
            more_edges=max(0, len(shown) - MOST_PAGE_ROWS),
        )

    def _problems(self, seen: SeenMesh) -> list[PageProblem]:
        found = mesh_problems(seen)
        times = self._since.of((each.key, each.since) for each in found)
        told = [
            PageProblem(kind=each.kind, name=each.name, text=each.text, since=since, told_by=each.told_by)
            for each, since in zip(found, times, strict=True)
        ]
        return sorted(told, key=lambda each: each.since)  # causes come before what follows from them


class _Sum:
    """Of the edges of one host, or of one service."""

    def __init__(self) -> None:
        self.streams = self.failing = 0
        self.rate = 0.0
        self.callers: set[tuple[str, str]] = set()

    def add(self, edge: EdgeInfo) -> None:
        self.streams += edge.streams
        self.rate += edge.sent_per_s + edge.received_per_s
        self.failing += edge.failing_s is not None
        self.callers.add((edge.caller, edge.caller_host))


NOTHING = _Sum()


def _hosts(
    hosts: Mapping[str, HostRecord],
    edges: Iterable[EdgeInfo],
    told: Mapping[str, HostEdges],
    problems: Mapping[str, int],
    wanted: Wanted,
) -> list[PageHost]:
    """Those that are looked for: first those where something is wrong, then the busiest."""
    sums: dict[str, _Sum] = {}
    for edge in edges:
        for host in {edge.caller_host, edge.host or ""}:
            sums.setdefault(host, _Sum()).add(edge)
    found = []
    for name, record in hosts.items():
        if wanted.has(name, record.address, *(offer.name for offer in record.services)):
            sum_ = sums.get(name, NOTHING)
            shown = PageHost(
                name=name,
                address=record.address,
                version=record.version,
                services=len(record.services),
                streams=sum_.streams,
                rate=round(sum_.rate, 1),
                failing=sum_.failing,
                problems=problems.get(name, 0),
                told_s=told[name].age_s if name in told else None,
            )
            found.append(shown)
    return sorted(found, key=lambda each: (-each.failing, -each.problems, -each.rate, -each.streams, each.name))


def _services(hosts: Mapping[str, HostRecord], edges: Iterable[EdgeInfo], wanted: Wanted) -> list[PageService]:
    """Those that are looked for, called or offered: first those that fail, then the busiest."""
    offered: dict[str, list[str]] = {}
    sums: dict[str, _Sum] = {}
    for name, record in hosts.items():
        for offer in record.services:
            offered.setdefault(offer.name, []).append(name)
    for edge in edges:
        sums.setdefault(edge.service, _Sum()).add(edge)
    found = []
    for name in offered.keys() | sums.keys():
        if wanted.has(name, *offered.get(name, ())):
            sum_, where = sums.get(name, NOTHING), sorted(offered.get(name, ()))
            service = PageService(
                name=name,
                offered_by=len(where),
                hosts=tuple(where[:MOST_NAMED]),
                callers=len(sum_.callers),
                streams=sum_.streams,
                rate=round(sum_.rate, 1),
                failing=sum_.failing,
            )
            found.append(service)
    return sorted(found, key=lambda each: (-each.failing, -each.rate, -each.streams, each.name))
