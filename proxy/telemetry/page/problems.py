"""What is broken, where, and since when, in words for somebody who has just been woken up (sans-IO).

A problem names what it is about as the configuration does: a service, a host, a link. It tells of causes, not of what
follows: a service that fails because its host is down is the host's problem, and is told as that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from control.api.messages import Discovery, EdgeInfo, Ejection, LinkInfo, PeerStatus
from proxy.telemetry.page.changes import Flapping

SLOW = 2.0
"""Seconds that a stream is held back before that is a problem: bulk waits for credit and room all the time."""
NEARLY_FULL = 0.9
"""Part of the memory limit above which it is one."""

Kind = Literal["service", "host", "link", "reader", "this host"]


class Found(NamedTuple):
    """A problem. `since`: seconds that it has lasted, where the proxy knows; else it is since it was first seen."""

    kind: Kind
    name: str
    text: str
    since: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The same as long as it is the same problem."""
        return self.kind, self.name


class Seen(NamedTuple):
    """What the proxy tells, of which problems are found. `flapping`: by link, how often its session has gone on over
    another link lately; `offered`: by upstream, the hosts that offer it."""

    host: str
    peers: list[PeerStatus]
    links: list[LinkInfo]
    edges: list[EdgeInfo]
    ejected: list[Ejection]
    offered: Mapping[str, list[str]]
    missing: list[str]
    control: Discovery | None
    memory_used: int
    memory_limit: int
    flapping: Mapping[str, Flapping]


def problems(seen: Seen) -> list[Found]:
    """All of them, causes before what follows from them; each once."""
    found = {each.key: each for each in reversed(list(_all(seen)))}
    return list(reversed(found.values()))


def lasting(seen: Seen) -> list[Found]:
    """Those of them that show in no link and no edge: whoever looks must remember since when."""
    return [*_hosts(seen.peers), *_unserved(seen, _down(seen)), *_here(seen)]


def _all(seen: Seen) -> Iterator[Found]:
    down = _down(seen)
    yield from _hosts(seen.peers)
    yield from _unserved(seen, down)
    yield from _links(seen)
    yield from _services(seen, down)
    yield from _readers(seen.host, seen.edges)
    yield from _here(seen)


def _down(seen: Seen) -> set[str]:
    return {peer.name for peer in seen.peers if _is_down(peer)}


def _is_down(peer: PeerStatus) -> bool:
    return not peer.idle and peer.state != "up" and peer.last_error is not None


def _unserved(seen: Seen, down: set[str]) -> Iterator[Found]:
    for service, hosts in seen.offered.items():
        if seen.host not in hosts and all(host in down for host in hosts):
            why = f"all hosts that offer it are down: {', '.join(hosts)}" if hosts else "no host offers it"
            yield Found("service", service, f"Service {service} cannot be reached: {why}.")


def _hosts(peers: Iterable[PeerStatus]) -> Iterator[Found]:
    for peer in peers:
        if _is_down(peer):
            again = "" if peer.retry_in_s is None else f" It is dialled again in {peer.retry_in_s:.0f} s."
            waiting = f" Calls that wait for it: {peer.waiting}." if peer.waiting else ""
            yield Found("host", peer.name, f"Host {peer.name} is down: {peer.last_error}.{waiting}{again}")


def _links(seen: Seen) -> Iterator[Found]:
    for link in seen.links:
        way = f"{seen.host} to {link.peer}"
        flapping = seen.flapping.get(link.peer)
        if flapping is not None:
            what = f"The links to {link.peer} flap: lost and resumed {flapping.times} times in a minute."
            yield Found("link", way, what, flapping.seconds)
        elif link.suspended_s is not None:
            lost = f"Link {link.id} to {link.peer} is lost ({link.suspended_why})"
            yield Found("link", way, f"{lost}; streams that wait for another: {link.streams}.", link.suspended_s)
        elif link.silent_s is not None:
            what = f"Link {link.id} to {link.peer} is silent: what it sends is not acknowledged. A cable, or the host?"
            yield Found("link", way, what, link.silent_s)
        elif link.congested:
            yield Found("link", way, f"Link {link.id} to {link.peer} is congested: local sockets wait for it.")


def _services(seen: Seen, down: set[str]) -> Iterator[Found]:
    left = {(each.service, each.host): each for each in seen.ejected}
    failing: dict[tuple[str, str | None], list[EdgeInfo]] = {}
    for edge in seen.edges:
        if edge.failing_s is not None and edge.host not in down:
            failing.setdefault((edge.service, edge.host), []).append(edge)
    for (service, host), edges in failing.items():
        errors, longest = sum(edge.failed for edge in edges), max(edge.failing_s or 0.0 for edge in edges)
        callers = ", ".join(sorted({f"{edge.caller} on {edge.caller_host}" for edge in edges})[:3])
        where = f" at {host}" if host else ""
        ejected = left.get((service, host or ""))
        alone = f" The host is left alone for it for {ejected.left_s:.0f} s more." if ejected is not None else ""
        what = f"Service {service}{where} fails ({edges[0].reason}): {_some(errors, 'error')}, for {callers}.{alone}"
        yield Found("service", f"{service}{where}", what, longest)


def _readers(host: str, edges: Iterable[EdgeInfo]) -> Iterator[Found]:
    for edge in edges:
        if edge.stalled and edge.stalled_s >= SLOW and edge.stalled_by != "link":
            calls = edge.direction != "inbound"
            # The reader is on the host that tells; credit is what the other one does not grant.
            of_caller = calls is (edge.stalled_by == "reader")
            who = f"{edge.caller} on {edge.caller_host}" if of_caller else f"service {edge.service} at {edge.host}"
            held = _some(edge.stalled, "stream")
            what = f"Slow reader: {who} does not take its bytes; it holds {held} of {edge.service} back."
            yield Found("reader", f"{who} ({edge.service})", what, edge.stalled_s)


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _here(seen: Seen) -> Iterator[Found]:
    for line in seen.missing:
        yield Found("this host", line.partition(":")[0], f"{line[:1].upper()}{line[1:]}.")
    if seen.memory_used > NEARLY_FULL * seen.memory_limit:
        share = seen.memory_used / seen.memory_limit
        yield Found("this host", "memory", f"Memory is {share:.0%} of its limit: streams will end as over_budget.")
    if seen.control is not None and seen.control.server is None:
        why = seen.control.last_error or "no answer yet"
        yield Found("this host", "control plane", f"No control server is reached ({why}); the last map is followed.")
    elif seen.control is not None and not seen.control.registered:
        why = seen.control.registration_error or "no answer yet"
        yield Found("this host", "registration", f"This host is not registered: {why}.")
