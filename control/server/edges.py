"""Who talks to whom in the whole mesh.

Each host tells a control server of its busiest edges whenever it says that it is still there; what it has told is kept
here in memory, and nowhere else. For whoever wants to see all of them this server asks the others, once for each view.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import NamedTuple

import structlog
import trio

from control.api.client import ControlClient, Denied, Unreachable
from control.api.mesh import MOST_EDGES, MOST_PROBLEMS, HostEdges, ToldEdges, ToldProblem
from control.api.messages import EdgeInfo, Edges, busiest
from control.base.reading.addresses import is_wildcard
from control.server.servers import ControlServers

__all__ = ["LONGEST_NAME", "PATIENCE", "STALE", "EdgeBook", "MeshEdges", "MeshTold"]

log = structlog.get_logger()

STALE = 30.0
"""Seconds after which what a host has told counts no longer: six times as long as a host with the usual lease (15 s)
takes to tell again."""
LONGEST_NAME = 80
"""Characters of a name that hosts may tell; their own and their services' have 63 at most."""
LONGEST_TEXT = 1000
"""Characters of what a host says is wrong."""
PATIENCE = 3.0
"""Seconds that another control server has to tell what it knows."""


class EdgeBook:
    """What the hosts have told this server.

    Args:
        now: seconds, of any clock that goes on evenly.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._told: dict[str, tuple[float, tuple[EdgeInfo, ...], tuple[ToldProblem, ...]]] = {}

    def tell(self, host: str, edges: Iterable[EdgeInfo], problems: Iterable[ToldProblem] = ()) -> None:
        """A host that is on the map tells of its busiest edges, and what is wrong. What is not its own to tell of is
        left out, and so is what is longer than a host tells it.
        """
        known = [edge for edge in edges if _is_of(edge, host)]
        wrong = [each for each in problems if _is_told(each)]
        self._told[host] = (self._now(), tuple(known[:MOST_EDGES]), tuple(wrong[:MOST_PROBLEMS]))

    def told(self) -> Iterator[HostEdges]:
        """What counts of it now; the rest is forgotten."""
        now = self._now()
        self._told = {host: found for host, found in self._told.items() if now - found[0] < STALE}
        for host, (at, edges, problems) in self._told.items():
            yield HostEdges(host=host, age_s=round(now - at, 1), edges=edges, problems=problems)


def _is_of(edge: EdgeInfo, host: str) -> bool:
    """Whether a host may tell of an edge: it is at one of its ends, and its names are no longer than names are."""
    names = (edge.caller, edge.caller_host, edge.service, edge.host or "", edge.reason or "")
    return host == (edge.host if edge.direction == "inbound" else edge.caller_host) and all(
        len(name) <= LONGEST_NAME for name in names
    )


def _is_told(problem: ToldProblem) -> bool:
    names = max(len(problem.kind), len(problem.name)) <= LONGEST_TEXT
    return names and len(problem.text) <= LONGEST_TEXT and 0 <= problem.lasts_s < math.inf


class MeshTold(NamedTuple):
    """What hosts have told, by host; and why nothing is known of some, and servers have not answered."""

    found: dict[str, HostEdges]
    silent: dict[str, str]
    unanswered: dict[str, str]

    @property
    def edges(self) -> list[EdgeInfo]:
        """All edges, the busiest first."""
        return sorted(together(self.found), key=busiest)


class MeshEdges:
    """Puts together what this server and the others have been told.

    Args:
        mesh: its name.

    Attributes:
        context: TLS to the other servers; set by whoever keeps this server's certificate.
    """

    def __init__(self, book: EdgeBook, servers: ControlServers, mesh: str) -> None:
        self._book, self._servers, self._mesh = book, servers, mesh
        self.context: ssl.SSLContext | None = None

    async def read(self, hosts: Iterable[str]) -> Edges:
        """All edges, the busiest first; `Edges.missing` says of which of these hosts nothing is known, and which
        servers have not answered. Takes `PATIENCE` at most. Raises nothing.
        """
        told = await self.told(hosts)
        return Edges(edges=told.edges, missing={**told.unanswered, **told.silent})

    async def told(self, hosts: Iterable[str]) -> MeshTold:
        """All that these hosts have told. Takes `PATIENCE` at most. Raises nothing."""
        found = {each.host: each for each in self._book.told()}
        missing: dict[str, str] = {}

        async def ask(name: str, address: str) -> None:
            try:
                for each in (await self._ask(address)).hosts:
                    if each.host not in found or each.age_s < found[each.host].age_s:
                        found[each.host] = each
            except (Unreachable, Denied, trio.TooSlowError) as error:
                missing[f"control server {name}"] = str(error) or f"no answer within {PATIENCE:g} s"

        async with trio.open_nursery() as nursery:
            for name, address in self._servers.others():
                nursery.start_soon(ask, name, address)
        silent = f"has told nothing in the last {STALE:g} s: it has just come, or its proxy is of an earlier version"
        return MeshTold(found, {host: silent for host in hosts if host not in found}, missing)

    async def _ask(self, address: str) -> ToldEdges:
        context = self.context
        assert context is not None, "whoever asks has been served with the same certificate"
        if is_wildcard(address.rpartition(":")[0].strip("[]")):
            raise Unreachable(f"it listens on all addresses ({address}), and no host has reached it yet")
        async with ControlClient([address], lambda: context, name=self._mesh) as client:
            with trio.fail_after(PATIENCE):
                return await client.told_edges()


def together(found: Mapping[str, HostEdges]) -> Iterator[EdgeInfo]:
    """Each edge once: as its calling host tells it, or else the host that it leads to."""
    for each in found.values():
        for edge in each.edges:
            if edge.direction != "inbound" or edge.caller_host not in found:
                yield edge
