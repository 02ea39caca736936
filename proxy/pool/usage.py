"""What one pool knows of its use, and whether it wants a link for it (sans-IO: times and bytes go in)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proxy.pool.history import GapHistogram, UseHistory
from proxy.pool.ttl import IdlePlan, TtlTerms, gauge, plan, reason

HANDSHAKE = 0.001
"""Seconds that a handshake is thought to take until one was measured: TCP and HELLO on one segment, with some load."""
SMOOTHING = 8
"""A measured handshake moves the mean by this part of the difference, as TCP's estimate of the round trip does (RFC
6298)."""

BULK_BYTES = 1 << 20
"""A stream that moves a mebibyte proves heavy ..."""
BULK_RATE = 256 * 1024
"""... if it did so at this many bytes a second or faster: a day of small messages is not bulk."""
BULK_MEMORY = 600.0
"""Seconds after which a service that moved no more bulk counts as any other."""
BULK_SHARE = 0.5
"""Part of a service's recent streams that must have been heavy: its small calls would go where the bulk goes."""
_BULK_WEIGHT = 1 / 8
BULK_COUNT = 64
"""Streams of a service that has proved heavy after which it is worth a look whether they are."""


class _Mark:
    """A service that has proved heavy.

    Attributes:
        share: of its recent streams, those that were heavy; seen: when the latest of these was.
        opened, heavy: its streams that were opened, and those that have ended heavy, since the last look.
        open: how many were open then; None: not known.
    """

    __slots__ = ("heavy", "open", "opened", "seen", "share")

    def __init__(self, now: float) -> None:
        self.share, self.seen = 1.0, now
        self.begin()

    def begin(self) -> None:
        """Count from the next look on."""
        self.opened = self.heavy = 0
        self.open: int | None = None

    def count(self, still_open: int) -> bool:
        """A look: those that have ended since the last one, and not heavy, were light. False: there was no last one."""
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
    """When that changes by itself."""


class PoolUsage:
    """See the module's text. Memory is fixed, but for one small entry for each service that is called.

    Args:
        shared: the gaps of all peers of this host.
        terms: those of the configuration; the handshake is measured here.

    Attributes:
        busy: sessions that have streams, either side's.
        avoided: streams that this host opened, less the handshakes that one of them had asked for.
        warm, ahead: streams that this host opened and that found a link, and those of them for which it had been opened
            ahead.
        counted: services that have proved heavy and whose streams are counted, to see whether they still are; the
            others' calls need not ask for anything (`Picker.pick`).
        plan: what follows the end of the last stream, once somebody has asked; None while streams are open.
    """

    def __init__(self, shared: GapHistogram, terms: TtlTerms) -> None:
        self.history = UseHistory(shared)
        self.busy = self.avoided = self.warm = self.ahead = 0
        self.plan: IdlePlan | None = None
        self._terms = terms
        self._measured = False
        self._since: float | None = None
        self._bulk: dict[str, _Mark] = {}
        self.counted: set[str] = set()

    @property
    def terms(self) -> TtlTerms:
        """What plans rest on: the configuration's, with the handshake as it was measured."""
        return self._terms

    def adopt(self, terms: TtlTerms) -> None:
        """Go by other terms of a configuration from now on."""
        self._terms = terms._replace(handshake=self._terms.handshake)
        self.plan = None

    def dialled(self, seconds: float) -> None:
        """A handshake that succeeded took so long."""
        known = self._terms.handshake
        mean = known + (seconds - known) / SMOOTHING if self._measured else seconds
        self._measured = True
        self._terms = self._terms._replace(handshake=max(1e-6, mean))

    # Uses

    def began(self, now: float) -> None:
        """One more session has streams (`now`: seconds of a clock that does not go back)."""
        self.busy += 1
        if self.busy == 1:
            self.history.begin(now)
            self.plan = None

    def ended(self, now: float) -> None:
        """One has none any more."""
        self.busy -= 1
        if not self.busy:
            self.history.end(now)
            self._since = now

    def link_up(self, now: float) -> None:
        """A link has come up. Where none is wanted (it is the first, or the peer's), it is kept as after a use."""
        if not self.busy and not self.wanted(now).link:
            self._since = now
            self.plan = None

    def wanted(self, now: float) -> LinkDemand:
        """Whether a link should be there. One that nothing has used yet is wanted no more once it was there for so
        long as after a use.
        """
        if self.busy:
            return LinkDemand(True, False, float("inf"))
        if self._since is None:
            return LinkDemand(False, False, float("inf"))
        if self.plan is None:
            self.plan = self._planned(self._since)
        idle = now - self._since
        if idle < self.plan.ttl:
            return LinkDemand(True, False, self._since + self.plan.ttl)
        if self.plan.ahead is None or idle >= self.plan.ahead[1]:
            return LinkDemand(False, False, float("inf"))
        begin, end = self.plan.ahead
        if idle < begin:
            return LinkDemand(False, False, self._since + begin)
        return LinkDemand(True, True, self._since + end)

    def told(self, now: float) -> tuple[float, str]:
        """The TTL and the reason, for people; while streams are open, those that would follow if the last ended now."""
        found = self.plan
        if found is None:
            since = now if self.busy or self._since is None else self._since
            found = self._planned(since)
        return found.ttl, reason(self.history, found, self.terms)

    def _planned(self, since: float) -> IdlePlan:
        return plan(self.history, gauge(self.history, self.terms), since, self.terms)

    # Bulk

    @property
    def any_bulk(self) -> bool:
        """Whether any service has proved heavy of late."""
        return bool(self._bulk)

    def moved(self, service: str, count: int, seconds: float, now: float, ended: bool = True) -> None:
        """A stream of a service that this host calls has moved `count` bytes in `seconds`, and has `ended` or may go
        on. Light ones that have ended need not be told of: `count` finds them.
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
        """A stream of a service that is `counted` has been opened. Whether a look is worth it now."""
        mark = self._bulk[service]
        mark.opened += 1
        return mark.opened % BULK_COUNT == 0

    def expire(self, now: float) -> None:
        """Forget the services that have moved no bulk for long, whether anybody calls them or not."""
        for service, mark in list(self._bulk.items()):
            if now - mark.seen > BULK_MEMORY:
                self._forget(service)

    def count(self, still_open: Mapping[str, int]) -> None:
        """See which streams of services that are `counted` have ended light; `still_open`: how many have not ended. A
        service that is mostly light by now is counted no more, until another stream of it proves heavy.
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
