"""What a recorded history would have cost under other settings (sans-IO), by the code that decides in the proxy.

A replay has one link to each peer; a use that finds it up, or comes while another use keeps it up, is a warm hit. A
decision knows only what had ended by then: uses are gone through in the order of time, and a plan is made at the moment
when the last stream of a peer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log
from operator import itemgetter
from typing import NamedTuple

from proxy.pool.history import SHARED_MEMORY, GapHistogram, UseHistory
from proxy.pool.recorded import RecordedUse
from proxy.pool.ttl import GapStatistics, IdlePlan, TtlTerms, gauge, plan

REPLAN = 0.1
"""Part by which a peer's history must have grown, or `REPLAN_GAPS` gaps if they are fewer, before its TTL is worked out
anew. A replay has a hundred thousand idle moments, and one gap more in a thousand tells nothing new."""
REPLAN_GAPS = 20

LOWEST_PRICE, HIGHEST_PRICE = 1e-6, 1e1
"""Handshakes that a link-second is worth: the bounds of `PriceSearch`, from links that always stay to those that never
do.
"""
CLOSE_ENOUGH = 0.002
"""Part of the link-seconds asked for that may be missing; there are never more."""
STEPS = 12
"""Replays for one target at most. (Link-seconds jump where many peers' TTLs do, so a target cannot always be met.)"""


class ReplayOutcome(NamedTuple):
    """What a history would have cost."""

    uses: int
    warm: int
    """Uses that found a link."""
    ahead: int
    """Those of them for which it had been opened ahead."""
    handshakes: int
    link_seconds: float
    """Time that links were up, all peers together."""


class ReplayTrace:
    """A recorded history, made ready for any number of replays.

    Attributes:
        events: (time, True when a peer comes into use and False when it ends being so, number of the peer), in the
            order of time.
        peers, uses: how many; within: uses that came while the peer was in use.
        busy_seconds: seconds that peers were in use, all together.
        end: when the last use ended; span: seconds from the first use to then.
    """

    def __init__(self, uses: Iterable[RecordedUse]) -> None:
        self.events: list[tuple[float, bool, int]] = []
        self.uses = self.within = 0
        self.busy_seconds = 0.0
        numbers: dict[str, int] = {}
        until: list[float] = []
        for use in sorted(uses, key=lambda use: use.time):
            self.uses += 1
            number = numbers.setdefault(use.peer, len(until))
            ends = use.time + use.duration
            if number == len(until):
                until.append(ends)
            elif use.time <= until[number]:
                self.within += 1
                self.busy_seconds += max(0.0, ends - until[number])
                until[number] = max(until[number], ends)
                continue
            else:
                self.events.append((until[number], False, number))
                until[number] = ends
            self.events.append((use.time, True, number))
            self.busy_seconds += use.duration
        self.events += [(ends, False, number) for number, ends in enumerate(until)]
        self.events.sort(key=itemgetter(0))  # stable: a peer's events of equal times keep their order
        self.peers = len(until)
        self.end = max(until, default=0.0)
        self.span = self.end - min((time for time, _, _ in self.events), default=self.end)


class _Peer:
    __slots__ = ("gaps_at_plan", "gauge", "history", "idle_since", "plan")

    def __init__(self, shared: GapHistogram) -> None:
        self.history = UseHistory(shared)
        self.idle_since: float | None = None
        self.gaps_at_plan = -1
        self.gauge: GapStatistics
        self.plan = IdlePlan(0.0, 0.0)


Planner = Callable[[_Peer, float], IdlePlan]
"""Makes the plan for a peer whose last stream ends at this time."""


def fixed(ttl: float) -> Planner:
    """The same TTL for all peers, always (seconds)."""
    always = IdlePlan(ttl, 0.0)
    return lambda peer, now: always


def learnt(terms: TtlTerms) -> Planner:
    """TTLs as the proxy learns them."""

    def planner(peer: _Peer, now: float) -> IdlePlan:
        gaps = peer.history.gaps
        grown = gaps - peer.gaps_at_plan >= max(1, min(REPLAN_GAPS, int(gaps * REPLAN)))
        if grown:
            peer.gaps_at_plan, peer.gauge = gaps, gauge(peer.history, terms)
        if grown or peer.plan.ahead is not None:
            return plan(peer.history, peer.gauge, now, terms)
        return peer.plan

    return planner


def replay(trace: ReplayTrace, planner: Planner) -> ReplayOutcome:
    """Go through a history. The first use of each peer finds no link, whatever the settings."""
    shared = GapHistogram(SHARED_MEMORY)
    peers = [_Peer(shared) for _ in range(trace.peers)]
    warm, ahead, handshakes, held = trace.within, 0, 0, trace.busy_seconds
    for now, begins, number in trace.events:
        peer = peers[number]
        if not begins:
            peer.history.end(now)
            peer.plan = planner(peer, now)
            peer.idle_since = now
            continue
        if peer.idle_since is None:
            handshakes += 1
        else:
            found = _idle(peer.plan, now - peer.idle_since)
            warm += found.warm
            ahead += found.ahead
            handshakes += found.handshakes
            held += found.seconds
        peer.history.begin(now)
    for peer in peers:
        assert peer.idle_since is not None
        found = _idle(peer.plan, trace.end - peer.idle_since)
        handshakes += found.handshakes - (not found.warm)  # no use came that would have dialled
        held += found.seconds
    return ReplayOutcome(trace.uses, warm, ahead, handshakes, held)


class _Found(NamedTuple):
    warm: bool
    ahead: bool
    handshakes: int
    seconds: float


def _idle(plan: IdlePlan, gap: float) -> _Found:
    """What a plan does in a gap of so many seconds: whether the use at its end finds a link, and whether one opened
    ahead; handshakes; and seconds that a link was up.
    """
    if gap <= plan.ttl:
        return _Found(True, False, 0, gap)
    if plan.ahead is None or gap < plan.ahead[0]:
        return _Found(False, False, 1, plan.ttl)
    begin, end = plan.ahead
    if gap <= end:
        return _Found(True, True, 1, plan.ttl + gap - begin)
    return _Found(False, False, 2, plan.ttl + end - begin)


class PriceSearch:
    """Finds the price at which the learnt TTL holds links as long as some other setting does. Remembers each replay for
    later targets.

    Args:
        terms: for all prices; their own price is not used.
    """

    def __init__(self, trace: ReplayTrace, terms: TtlTerms) -> None:
        self._trace, self._terms = trace, terms
        self._known: dict[float, ReplayOutcome] = {}

    def at(self, price: float) -> ReplayOutcome:
        """The outcome at a price (seconds of waiting for a link-second)."""
        if price not in self._known:
            self._known[price] = replay(self._trace, learnt(self._terms._replace(price=price)))
        return self._known[price]

    def matching(self, link_seconds: float) -> tuple[float, ReplayOutcome] | None:
        """The price, and its outcome, that holds links for nearly so long and never longer; None: no price holds them
        so briefly.
        """
        below, above = LOWEST_PRICE * self._terms.handshake, HIGHEST_PRICE * self._terms.handshake
        for price, outcome in self._known.items():
            if outcome.link_seconds > link_seconds:
                below = max(below, price)
            else:
                above = min(above, price)
        for _ in range(STEPS):
            most, least = self.at(below).link_seconds, self.at(above).link_seconds
            if least > link_seconds:
                return None
            if least >= link_seconds * (1 - CLOSE_ENOUGH) or most <= link_seconds:
                break
            # Where a straight line between both ends would meet it (both axes logarithmic), but not too near to either.
            part = log(most / link_seconds) / log(most / least)
            price = below * (above / below) ** min(0.9, max(0.1, part))
            if self.at(price).link_seconds > link_seconds:
                below = price
            else:
                above = price
        best = above if self.at(below).link_seconds > link_seconds else below
        return best, self.at(best)
