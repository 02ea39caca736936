"""What a pool does next, decided synchronously from what it knows at that moment (sans-IO).

`next_step` is the whole decision, in this order: close a link that is not wanted, one at a time; else dial, first for
the session that has waited longest for another link, then for streams; else wait until time changes the answer. The
pool carries the step out and calls it again, and also whenever something happens that may change the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from proxy.pool.usage import LinkDemand

CROWDED = 512
"""Streams on the least loaded link from which on another link is worth its handshake. Below, one link is cheaper: the
more streams share a link, the more messages share one system call (docs/performance.md)."""
QUEUEING = 0.1
"""Part of the last second or so in which bytes waited for a link's socket, from which on another link is worth its
handshake."""

SPARE = 60.0
"""Seconds that a link without streams is kept beside another one: a crowd that comes back does so within a minute."""
LOOK = 5.0
"""Seconds, at most, between two decisions of a pool that has links: whether they are still wanted, whether streams have
proved heavy. A stream that begins and ends in between does not wake the pool's task, since that costs as much as the
stream; so a link may outlive its TTL by as much as this."""

MOST_LEAVING = 64
"""Links of one peer that may be leaving at a time, beside those that it may have. Upgrades in a row leave a few for as
long as their streams last; without a bound a peer could say goodbye on each new link, keep it, and so fill our memory.
"""


class LinkLoad(Protocol):
    """What `choose` and `wants_more` need to know of a link."""

    @property
    def usable(self) -> bool:
        """Whether it takes one more stream."""

    @property
    def congested(self) -> bool:
        """Whether bytes wait because its socket takes no more."""

    @property
    def queueing(self) -> float:
        """The part of the last second or so in which it was congested, 0 to 1."""

    @property
    def bulk(self) -> bool:
        """Whether it is set apart for bulk streams."""

    @property
    def streams(self) -> int:
        """Streams on it."""


L = TypeVar("L", bound=LinkLoad)
K = TypeVar("K")
"""What stands for a link in a decision: the pool's `Link`, any value in a test."""
T = TypeVar("T")
"""What stands for a session, likewise."""


def choose(links: Sequence[L], bulk: bool = False) -> L | None:
    """The link for a new stream, `bulk` if it is likely to be heavy; None if none is usable.

    Heavy streams prefer links that are set apart for bulk, light ones the others. Among those, links that are not
    congested come first. Among those, the first one with fewer than `CROWDED` streams, since streams that share a link
    share its system calls, and a link that gets none may be closed; if all are crowded, the one with the fewest.
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


def wants_more(link: LinkLoad, bulk: bool = False) -> bool:
    """Whether one more link would be worth its handshake; `link` is what `choose` has returned for the stream."""
    return link.bulk is not bulk or link.queueing >= QUEUEING or link.streams >= CROWDED


class LinkState(NamedTuple, Generic[K]):
    """A link at the moment of a decision: a `LinkLoad`, and what else `next_step` must know of it."""

    link: K
    dialled: bool = True
    """Whether this side dialled it: only the side that did closes an idle link."""
    usable: bool = True
    leaving: bool = False
    """Whether it takes no more streams (GOAWAY), and ends with its last one."""
    congested: bool = False
    queueing: float = 0.0
    bulk: bool = False
    streams: int = 0
    unused_for: float = 0.0
    """Seconds since its last stream ended, or since it came up; counts only while it has no stream."""


class PoolState(NamedTuple, Generic[K, T]):
    """What a pool knows when it decides. Times are seconds of one clock that does not go back."""

    now: float
    limit: int
    """Links that the pool may have (links.max_per_peer)."""
    wanted: LinkDemand
    """Whether the use of the peer so far is reason to have a link (`PoolUsage.wanted`)."""
    links: tuple[LinkState[K], ...] = ()
    """In the order in which they came up. Those that are leaving do not count towards `limit`."""
    needed: bool = False
    """Whether an upstream of this host names a service of the peer. Such a peer is dialled at the start and after a
    failure, so that a call meets neither a cold link nor an outage that nobody knew of."""
    idle: bool = False
    """Whether there is no link because nothing used the last one: then a peer is not dialled for being `needed`."""
    waiting: int = 0
    """Streams that wait for a link."""
    invited: bool = False
    """Whether balancing has preferred this idle peer to a busy one since the last dial (`Pool.invite`)."""
    bulk: bool = False
    """Whether a stream that is likely to be heavy has wanted one more link, since the last dial for such streams and
    the last time that there was one for them or no room for one more."""
    lost: T | None = None
    """Of the sessions that have lost their link and that this side dials for, the one that has waited longest."""
    untold: bool = False
    """Whether the peer may have sessions that this side does not, and has not been told: its streams wait in them."""
    suspended: int = 0
    """Sessions that wait for another link and will take streams again, whichever side dials for them."""
    suspended_ours: int = 0
    """Those of them that this side dials for."""
    draining: bool = False
    """Whether this host takes no new streams; those that wait already still get their link."""
    retry_at: float | None = None
    """Earliest time of the next dial after one that failed; None: at once."""

    @property
    def taking(self) -> int:
        """Links that are not leaving."""
        return sum(not each.leaving for each in self.links)


class Dial(NamedTuple, Generic[T]):
    """Dial now."""

    session: T | None
    """The session that has lost its link and shall go on over the new one; None: a new session begins."""
    ahead: bool = False
    """Whether a use is expected and no stream waits."""
    bulk: bool = False
    """Whether streams that are likely to be heavy have wanted it; `BulkStreams.set_apart` then gives them a link."""
    why: str = ""
    """For people, of a new session."""


class Retire(NamedTuple, Generic[K]):
    """Close this link, which has no streams (`Link.retire`)."""

    link: K


class Wait(NamedTuple):
    """Do nothing until then, unless something happens first."""

    until: float


def next_step(state: PoolState[K, T]) -> Dial[T] | Retire[K] | Wait:
    """The next step of a pool; the order is in the head of this file."""
    unwanted = _unwanted(state)
    if unwanted is not None:
        return Retire(unwanted)
    until = min(state.wanted.until, state.now + LOOK if state.links else float("inf"))
    dial = _dial(state)
    if dial is None:
        return Wait(until)
    if state.retry_at is not None and state.now < state.retry_at:
        return Wait(min(until, state.retry_at))
    return dial


def _unwanted(state: PoolState[K, T]) -> K | None:
    # One at a time: a stream of the peer's that crosses our GOAWAY keeps the link open, and only one can be kept so.
    if state.draining or state.taking < len(state.links):
        return None
    unused = [each for each in state.links if each.dialled and not each.streams]
    spare = [each for each in unused if len(state.links) > 1 and each.unused_for >= SPARE]
    unwanted = spare or (unused if not state.wanted.link else [])
    return unwanted[-1].link if unwanted else None


def _dial(state: PoolState[K, T]) -> Dial[T] | None:
    ahead = state.wanted.ahead and not state.waiting
    if state.lost is not None:
        return Dial(state.lost, ahead)
    leaving = len(state.links) - state.taking
    if not has_room(state.taking + state.suspended_ours, leaving, state.limit):
        return None
    if state.draining and not state.waiting:
        return None
    best = choose(state.links)
    if best is None:
        return Dial(None, ahead, why=_first(state)) if state.waiting or _needed(state) else None
    if wants_more(best):
        return Dial(None, ahead, why=_another(best))
    if state.untold:
        return Dial(None, ahead, why="the peer's streams wait for one")
    if state.bulk and wants_more(choose(state.links, True) or best, True):
        return Dial(None, ahead, True, why="heavy streams asked for one")
    return None


def _first(state: PoolState[K, T]) -> str:
    if state.waiting:
        return "a call waited for it"
    if state.wanted.ahead:
        return "a call was expected"
    return "a host that idles was preferred to a busy one" if state.invited else "an upstream needs the peer"


def _another(best: LinkLoad) -> str:
    if best.bulk:
        return "the other one is for heavy streams"
    return "bytes waited for the other one" if best.queueing >= QUEUEING else "the other one has many streams"


def _needed(state: PoolState[K, T]) -> bool:
    """Whether there should be a link though nobody waits for one."""
    # A session that the peer dials for will bring a link: no dial from here, unless a stream waits.
    expected = (not state.idle or state.wanted.ahead) and not state.suspended
    return state.invited or (state.needed and expected)


def has_room(links: int, leaving: int, limit: int) -> bool:
    """Whether the pool may have one more link.

    Args:
        links: links that take streams, and sessions that wait for one and then will; leaving: links that are leaving.
    """
    return links < limit and leaving < MOST_LEAVING


def admits(*, links: int, dialling: bool, limit: int, own: str, peer: str) -> bool:
    """Whether to accept one more link that `peer` dialled.

    When both hosts dial at once and only one more link is allowed, both must decide alike: the dial of the host whose
    name sorts first counts (as in BGP's collision detection, RFC 4271 section 6.8, which compares identifiers).
    """
    if links >= limit:
        return False
    collision = dialling and links + 1 >= limit
    return not collision or peer < own
