"""What a pool does next, decided synchronously from plain numbers (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

CROWDED = 512
"""Streams on the least loaded link above which another link is worth its handshake. Below, one link is cheaper: the
more streams share a link, the more messages share one system call (docs/performance.md)."""


class Load(Protocol):
    """What the choice needs to know of a link."""

    @property
    def usable(self) -> bool:
        """Whether it takes one more stream."""

    @property
    def congested(self) -> bool:
        """Whether bytes wait because the link takes no more."""

    @property
    def streams(self) -> int:
        """Streams on it."""


L = TypeVar("L", bound=Load)


def choose(links: Sequence[L]) -> L | None:
    """The link for a new stream: the least loaded one, and a congested one only if there is no other."""
    if len(links) == 1:
        return links[0] if links[0].usable else None
    best: L | None = None
    best_load = (True, 0)
    for link in links:
        if link.usable:
            load = (link.congested, link.streams)
            if best is None or load < best_load:
                best, best_load = link, load
    return best


def crowded(link: Load) -> bool:
    """Whether one more link would be worth its handshake, `link` being the least loaded one."""
    return link.congested or link.streams >= CROWDED


class Standing(NamedTuple):
    """Where a pool stands."""

    links: int
    """Links that are up."""
    limit: int
    """Links that the pool may have (links.max_per_peer)."""
    needed: bool
    """Whether an upstream of this host names a service of the peer."""
    waiting: int
    """Streams that wait for a link."""
    best: Load | None
    """What `choose` chose."""


def should_dial(standing: Standing) -> bool:
    """Whether to dial now. One dial at a time is the pool's matter."""
    if standing.links >= standing.limit:
        return False
    if standing.links == 0 or standing.best is None:
        return standing.needed or standing.waiting > 0
    return crowded(standing.best)


def admits(*, links: int, dialling: bool, limit: int, own: str, peer: str) -> bool:
    """Whether to accept one more link that `peer` dialled.

    When both hosts dial at once and only one more link is allowed, both must come to the same answer: the dial of the
    host whose name sorts first counts (as in BGP's collision detection, RFC 4271 section 6.8, which compares
    identifiers).
    """
    if links >= limit:
        return False
    collision = dialling and links + 1 >= limit
    return not collision or peer < own
