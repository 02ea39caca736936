"""What is wrong in the mesh, in words for somebody who has just been woken up (sans-IO): what its hosts say of
themselves and of each other, each thing once, and what only the control plane knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from control.api.mesh import HostEdges, HostRecord

__all__ = ["FoundInMesh", "GoneHost", "SeenMesh", "mesh_problems"]

NAMED = 3
"""Hosts that are named where there are many."""


class FoundInMesh(NamedTuple):
    """A problem. `since`: seconds that it has lasted, where that is known; `told_by`: the hosts that say so."""

    kind: str
    name: str
    text: str
    since: float | None = None
    told_by: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The same as long as it is the same problem."""
        return self.kind, self.name


class GoneHost(NamedTuple):
    """A host that has vanished, with its last record, so many seconds ago."""

    record: HostRecord
    seconds: float


class SeenMesh(NamedTuple):
    """What a control server knows. `hosts`: the map, None without a view of the store; `silent`: hosts on it that have
    told nothing; `unanswered`: control servers, and why they have not answered."""

    server: str
    hosts: Mapping[str, HostRecord] | None
    told: Mapping[str, HostEdges]
    gone: Iterable[GoneHost]
    silent: Iterable[str]
    unanswered: Mapping[str, str]


def mesh_problems(seen: SeenMesh) -> list[FoundInMesh]:
    """All of them: what the control plane knows, then what hosts tell, what most of them tell first. Each once."""
    found: dict[tuple[str, str], FoundInMesh] = {}
    for each in (*_here(seen), *_gone(seen), *_told(seen.told), *_silent(seen)):
        before = found.get(each.key)
        found[each.key] = each if before is None else _both(before, each)
    return list(found.values())


def _both(before: FoundInMesh, more: FoundInMesh) -> FoundInMesh:
    lasted = [each for each in (before.since, more.since) if each is not None]
    return FoundInMesh(
        *before.key, f"{before.text} {more.text}", max(lasted, default=None), (*before.told_by, *more.told_by)
    )


def _here(seen: SeenMesh) -> Iterator[FoundInMesh]:
    if seen.hosts is None:
        yield FoundInMesh("control plane", seen.server, f"Control server {seen.server} cannot watch its store.")
    for name, why in seen.unanswered.items():
        yield FoundInMesh("control plane", name.removeprefix("control server "), f"{name.capitalize()}: {why}.")


def _gone(seen: SeenMesh) -> Iterator[FoundInMesh]:
    lost: dict[str, list[GoneHost]] = {}
    offered = {offer.name for record in (seen.hosts or {}).values() for offer in record.services}
    for each in seen.gone:
        record = each.record
        what = f"Host {record.name} ({record.address}) has vanished: it does not say any more that it is there."
        yield FoundInMesh("host", record.name, what, each.seconds)
        for offer in record.services:
            if offer.name not in offered:
                lost.setdefault(offer.name, []).append(each)
    for service, hosts in lost.items():
        names = _names([each.record.name for each in hosts])
        # Since the last of them went there is none.
        seconds = min(each.seconds for each in hosts)
        yield FoundInMesh("service", service, f"No host offers service {service} any more; {names} did.", seconds)


def _told(told: Mapping[str, HostEdges]) -> Iterator[FoundInMesh]:
    said: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for host, each in told.items():
        for problem in each.problems:
            # What a host has of its own is there as often as there are hosts.
            own = problem.kind == "this host"
            key = ("host", f"{host}: {problem.name}") if own else (problem.kind, problem.name)
            said.setdefault(key, []).append((problem.lasts_s + each.age_s, host, problem.text))
    for key, tellers in sorted(said.items(), key=lambda item: -len(item[1])):
        lasts, _, text = max(tellers)
        yield FoundInMesh(*key, text, lasts, tuple(sorted(host for _, host, _ in tellers)))


def _silent(seen: SeenMesh) -> Iterator[FoundInMesh]:
    silent = sorted(seen.silent)
    if silent:
        what = "tells" if len(silent) == 1 else "tell"
        text = f"{_names(silent)} {what} nothing of edges and problems; the proxy may be of an earlier version."
        yield FoundInMesh("host", _names(silent), text)


def _names(hosts: list[str]) -> str:
    more = len(hosts) - NAMED
    return ", ".join(hosts) if more <= 0 else f"{', '.join(hosts[:NAMED])} and {more} more"
