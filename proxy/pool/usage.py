"""What one pool has learnt of its use: whether it should have a link now, and which services are heavy (sans-IO: times
and bytes go in).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from proxy.pool.history import GapHistogram, UseHistory
from proxy.pool.ttl import IdlePlan, TtlTerms, gauge, plan, reason
from proxy.pool.uses import Uses

HANDSHAKE = 0.001
"""Seconds that a handshake is thought to take until one was measured: TCP and HELLO on one segment, with some load."""
SMOOTHING = 8
"""Each measured handshake moves the mean by the difference divided by this, as in TCP's estimate of the round trip (RFC
6298)."""

BULK_BYTES = 1 << 20
"""A stream that moves a mebibyte proves heavy ..."""
BULK_RATE = 256 * 1024
"""... if it did so at this many bytes a second or faster: a day of small messages is not bulk."""
BULK_MEMORY = 600.0
"""Seconds after which a service that moved no more bulk counts as any other."""
BULK_SHARE = 0.5
"""Part of a service's recent streams that must have been heavy for its next stream to go with bulk, where small calls
are slow."""
_BULK_WEIGHT = 1 / 8
BULK_COUNT = 64
"""Streams of a counted service after which it pays to find out how many of them were light (`PoolUsage.count`)."""


class _Mark:
    """A service that has proved heavy.

    Attributes:
        share: the part of its recent streams that were heavy, a decaying average; seen: when one last proved so.
        opened, heavy: its streams that were opened, and those that have ended heavy, since the last count.
        open: how many were open at the last count; None: there was none.
    """

    __slots__ = ("heavy", "open", "opened", "seen", "share")

    def __init__(self, now: float) -> None:
        self.share, self.seen = 1.0, now
        self.begin()

    def begin(self) -> None:
        """Begin to count; how many streams are open now, the next `count` tells."""
        self.opened = self.heavy = 0
        self.open: int | None = None

    def count(self, still_open: int) -> bool:
        """Work out how many streams have ended light since the last count: those that were open or opened, are not open
        any more, and did not end heavy. False: this is the first count, so they are not known.
        """
        before, self.open = self.open, still_open
        light = 0 if before is None else max(0, before + self.opened - self.heavy - still_open)
        self.share *= (1 - _BULK_WEIGHT) ** light
        self.opened = self.heavy = 0
        return before is not None


class LinkDemand(NamedTuple):
    """Whether the pool should have a link now."""

    link: bool
    ahead: bool
    """Whether it is wanted for a use that is expected, so that one must be dialled if there is none."""
    until: float
    """Time at which that changes if no stream begins or ends."""


class PoolUsage(Uses):
    """The use of one pool. Memory is fixed, but for a small entry for each service that has proved heavy.

    Args:
        shared: the gaps of all peers of this host.
        terms: those of the configuration; their handshake counts until one is measured (`dialled`).

    Attributes:
        ahead: those of the `warm` streams for which the link had been opened ahead.
    """

    history: UseHistory

    def __init__(self, shared: GapHistogram, terms: TtlTerms) -> None:
        super().__init__(UseHistory(shared))
        self.ahead = 0
        self._terms = terms
        self._measured = False
        self._up_at = -inf
        self._plan: tuple[float, IdlePlan] | None = None
        self._bulk: dict[str, _Mark] = {}

    @property
    def terms(self) -> TtlTerms:
        """The configuration's terms with the handshake as it was measured."""
        return self._terms

    def adopt(self, terms: TtlTerms) -> None:
        """Follow another configuration's terms from now on; the measured handshake stays."""
        self._terms = terms._replace(handshake=self._terms.handshake)
        self._plan = None

    def dialled(self, seconds: float) -> None:
        """A handshake that succeeded has taken so long."""
        known = self._terms.handshake
        mean = known + (seconds - known) / SMOOTHING if self._measured else seconds
        self._measured = True
        self._terms = self._terms._replace(handshake=max(1e-6, mean))

    # Uses

    def link_up(self, now: float) -> None:
        """A link has come up. If none is wanted (it is the first, or the peer dialled it), it is kept for a TTL from
        now on, as after a use.
        """
        if not self.busy and not self.wanted(now).link:
            self._up_at = now

    def wanted(self, now: float) -> LinkDemand:
        """Whether the pool should have a link: while a stream is open, for the TTL after the last one or after a link
        has come up unwanted, and in the window in which the plan expects the next use.
        """
        if self.busy:
            return LinkDemand(True, False, inf)
        since = self._idle_since
        if since == -inf:
            return LinkDemand(False, False, inf)
        idle, found = now - since, self._planned(since)
        if idle < found.ttl:
            return LinkDemand(True, False, since + found.ttl)
        if found.ahead is None or idle >= found.ahead[1]:
            return LinkDemand(False, False, inf)
        begin, end = found.ahead
        if idle < begin:
            return LinkDemand(False, False, since + begin)
        return LinkDemand(True, True, since + end)

    def told(self, now: float) -> tuple[float, str]:
        """The TTL and the reason in words; while streams are open, those that hold if the last one ended now."""
        since = self._idle_since
        found = self._planned(now if self.busy or since == -inf else since)
        return found.ttl, reason(self.history, found, self.terms)

    @property
    def _idle_since(self) -> float:
        """Since when no stream is open, from which a link's TTL is reckoned; -inf: there was no stream or link."""
        return max(self.history.idle_since, self._up_at)

    def _planned(self, since: float) -> IdlePlan:
        """What to do after `since`; worked out once."""
        if self._plan is None or self._plan[0] != since:
            self._plan = since, plan(self.history, gauge(self.history, self.terms), since, self.terms)
        return self._plan[1]

    # Bulk

    @property
    def any_bulk(self) -> bool:
        """Whether any service has proved heavy within the last `BULK_MEMORY` seconds."""
        return bool(self._bulk)

    def moved(self, service: str, count: int, seconds: float, now: float, ended: bool = True) -> None:
        """A stream that this host opened has moved `count` bytes in `seconds`, and has `ended` or goes on. The ends of
        light streams need not be told: `PoolUsage.count` works out how many there were.
        """
        heavy = is_bulk(count, seconds)
        mark = self._bulk.get(service)
        if mark is None:
            if not heavy:
                return
            mark = self._bulk[service] = _Mark(now)
        mark.share += (heavy - mark.share) * _BULK_WEIGHT
        if heavy:
            mark.seen = now
            if service not in self.counted:
                mark.begin()
                self.counted.add(service)
            mark.heavy += ended

    def opened(self, service: str) -> bool:
        """A stream of a `counted` service has been opened. Every `BULK_COUNT` of them True: `count` should follow."""
        mark = self._bulk[service]
        mark.opened += 1
        return mark.opened % BULK_COUNT == 0

    def expire(self, now: float) -> None:
        """Forget the services that have moved no bulk for `BULK_MEMORY` seconds, whether they are called or not."""
        for service, mark in list(self._bulk.items()):
            if now - mark.seen > BULK_MEMORY:
                self._forget(service)

    def count(self, still_open: Mapping[str, int]) -> None:
        """Work out how many streams of each `counted` service have ended light since the last call; `still_open` says
        how many are open now. A service that is mostly light by now is no longer counted, until a stream of it proves
        heavy again.
        """
        for service in list(self.counted):
            mark = self._bulk[service]
            if mark.count(still_open.get(service, 0)) and mark.share < BULK_SHARE:
                self.counted.remove(service)

    def bulk(self, service: str, now: float) -> bool:
        """Whether a new stream of the service is likely to be heavy."""
        mark = self._bulk.get(service)
        if mark is None:
            return False
        if now - mark.seen > BULK_MEMORY:
            self._forget(service)
            return False
        return mark.share >= BULK_SHARE

    def _forget(self, service: str) -> None:
        del self._bulk[service]
        self.counted.discard(service)


def is_bulk(count: int, seconds: float) -> bool:
    """Whether a stream that has moved so many bytes in so many seconds is heavy."""
    return count >= BULK_BYTES and count >= BULK_RATE * seconds
