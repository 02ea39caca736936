"""What a pool does next, decided synchronously from plain numbers (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

CROWDED = 512
"""Streams on the least loaded link above which another link is worth its handshake. Below, one link is cheaper: the
more streams share a link, the more messages share one system call (docs/performance.md)."""
QUEUEING = 0.1
"""Part of the last second or so in which bytes waited for a link above which another one is worth its handshake."""

MOST_LEAVING = 64
"""Links of one peer that may be leaving at a time, beside those that it may have. Upgrades in a row leave a few for as
long as their streams last; without a bound a peer could say goodbye on each new link, keep it, and so fill our memory.
"""


class Load(Protocol):
    """What the choice needs to know of a link."""

    @property
    def usable(self) -> bool:
        """Whether it takes one more stream."""

    @property
    def congested(self) -> bool:
        """Whether bytes wait because the link takes no more."""

    @property
    def queueing(self) -> float:
        """The part of the last second or so in which they did, 0 to 1."""

    @property
    def bulk(self) -> bool:
        """Whether it is for bulk streams."""

    @property
    def streams(self) -> int:
        """Streams on it."""


L = TypeVar("L", bound=Load)


def choose(links: Sequence[L], bulk: bool = False) -> L | None:
    """The link for a new stream, `bulk` if it is likely to be heavy. Bulk keeps to links for bulk, other streams to the
    others; a congested link only if there is no other; and then the first one that is not full, since streams that
    share a link share its system calls, and a link that is left over may end. Of full ones, the one with the fewest.
    """
    if len(links) == 1:
        return links[0] if links[0].usable else None
    best: L | None = None
    best_load = (True, True, 0)
    for link in links:
        if link.usable:
            streams = link.streams
            load = (link.bulk is not bulk, link.congested, streams if streams >= CROWDED else 0)
            if best is None or load < best_load:
                best, best_load = link, load
    return best


def wants_more(link: Load, bulk: bool = False) -> bool:
    """Whether one more link would be worth its handshake, `link` being the best one for a stream."""
    return link.bulk is not bulk or link.queueing >= QUEUEING or link.streams >= CROWDED


class Standing(NamedTuple):
    """Where a pool stands."""

    links: int
    """Links that are up and take streams; those that are leaving have ended as far as this matters."""
    limit: int
    """Links that the pool may have (links.max_per_peer)."""
    needed: bool
    """Whether there should be a link though nobody waits: a use is expected, or an upstream of this host names a
    service of the peer and the last link did not end because it was idle. (Such a peer is dialled at the start and
    after a failure, so that a call meets neither a cold link nor an outage that nobody knew of.)"""
    waiting: int
    """Streams that wait for a link."""
    best: Load | None
    """What `choose` chose."""
    bulk: bool = False
    """Whether it was asked for bulk."""


def should_dial(standing: Standing) -> bool:
    """Whether to dial now. One dial at a time is the pool's matter."""
    if standing.links >= standing.limit:
        return False
    if standing.links == 0 or standing.best is None:
        return standing.needed or standing.waiting > 0
    return wants_more(standing.best, standing.bulk)


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
