"""Which of the hosts that offer a service gets the next stream (sans-IO).

Two hosts are picked at random, and the one with fewer streams gets it: nearly as even as looking at all of them, at the
same price however many there are, and callers on many hosts do not all run to the one that is idle for a moment
(Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Envoy, linkerd and NGINX do the same).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Protocol, TypeVar

WAITS = 8
"""Hosts at which one stream waits for a link, when none of those that offer the service has one: enough that one
of them answers, and no dial to each of a thousand hosts for one call."""
TRIES = 5
"""Hosts that are asked, one after the other, to deliver one stream. Envoy's default is 2, with health checks in front;
here a refusal is how a stale map shows."""

NOBODY: frozenset[str] = frozenset()


class Endpoint(Protocol):
    """What the choice needs to know of a peer's pool."""

    @property
    def name(self) -> str:
        """The peer's host name."""

    @property
    def streams(self) -> int:
        """Streams on its links."""

    @property
    def up(self) -> bool:
        """Whether a link is up."""

    @property
    def idle(self) -> bool:
        """Whether there is no link because nothing used the last one."""

    @property
    def last_error(self) -> str | None:
        """Of the last dial, if that failed."""

    def invite(self) -> None:
        """Dial soon, though no stream waits for a link."""


E = TypeVar("E", bound=Endpoint)


def choose(endpoints: Sequence[E], random: Callable[[], float], ejected: Container[str] = NOBODY) -> E | None:
    """The host at which to open a stream, which has a link; None: the stream waits for one, at the hosts that `waits`
    names.

    Ejected ones are taken only where nobody else is left who has a link or may soon have one. A host that is picked and
    idle is invited if the other one is busy: a link that is up must not draw all streams upon itself.

    Args:
        random: returns numbers evenly spread over [0, 1), as random.random does.
        ejected: names of hosts to be avoided.
    """
    count = len(endpoints)
    if count < 2:
        return endpoints[0] if endpoints and endpoints[0].up else None
    first, second = int(random() * count), int(random() * (count - 1))
    one, other = endpoints[first], endpoints[second + (second >= first)]
    takes_one, takes_other = one.up and one.name not in ejected, other.up and other.name not in ejected
    if takes_one and takes_other:
        return one if one.streams <= other.streams else other
    if takes_one or takes_other:
        chosen, rest = (one, other) if takes_one else (other, one)
        if chosen.streams and rest.idle and rest.name not in ejected:
            rest.invite()
        return chosen
    return _any(endpoints, first, ejected)


def _any(endpoints: Sequence[E], first: int, ejected: Container[str]) -> E | None:
    """Neither of the two that were picked will do: go through all, from number `first` on and around."""
    hopeful, last_resort = False, None
    for endpoint in (*endpoints[first:], *endpoints[:first]):
        if endpoint.name in ejected:
            last_resort = last_resort or (endpoint if endpoint.up else None)
        elif endpoint.up:
            return endpoint
        else:
            hopeful = hopeful or endpoint.last_error is None
    return None if hopeful else last_resort


def waits(endpoints: Sequence[E], random: Callable[[], float], ejected: Container[str] = NOBODY) -> list[E]:
    """Where a stream waits for a link: at no more than `WAITS` hosts, those first whose last dial has not failed."""
    if len(endpoints) <= WAITS:
        return list(endpoints)
    first = int(random() * len(endpoints))
    turned = (*endpoints[first:], *endpoints[:first])
    hopeful = [each for each in turned if each.last_error is None and each.name not in ejected]
    return [*hopeful, *_without(turned, hopeful)][:WAITS]


def _without(endpoints: Iterable[E], others: Sequence[E]) -> Iterable[E]:
    known = set(map(id, others))
    return (each for each in endpoints if id(each) not in known)
