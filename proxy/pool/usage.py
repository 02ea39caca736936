"""What one pool knows of its use, and whether it wants a link for it (sans-IO: times and bytes go in)."""

from __future__ import annotations

from typing import NamedTuple

from proxy.pool.history import Gaps, History
from proxy.pool.ttl import Plan, Terms, gauge, plan, reason

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


class Wanted(NamedTuple):
    """Whether the pool should have a link now."""

    link: bool
    ahead: bool
    """Whether it is wanted for a use that is expected, so that one must be dialled if there is none."""
    until: float
    """When that changes by itself."""


class Usage:
    """See the module's text. Memory is fixed, but for one small entry for each service that is called.

    Args:
        shared: the gaps of all peers of this host.
        terms: those of the configuration; the handshake is measured here.

    Attributes:
        busy: sessions that have streams, either side's.
        avoided: streams that this host opened, less the handshakes that one of them had asked for.
        warm, ahead: streams that this host opened and that found a link, and those of them for which it had been opened
            ahead.
        any_bulk: whether any service has proved heavy of late.
        plan: what follows the end of the last stream, once somebody has asked; None while streams are open.
    """

    def __init__(self, shared: Gaps, terms: Terms) -> None:
        self.history = History(shared)
        self.busy = self.avoided = self.warm = self.ahead = 0
        self.plan: Plan | None = None
        self._terms = terms
        self._measured = False
        self._since: float | None = None
        self._bulk: dict[str, tuple[float, float]] = {}
        self.any_bulk = False

    @property
    def terms(self) -> Terms:
        """What plans rest on: the configuration's, with the handshake as it was measured."""
        return self._terms

    def adopt(self, terms: Terms) -> None:
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

    def wanted(self, now: float) -> Wanted:
        """Whether a link should be there. One that nothing has used yet is wanted no more once it was there for so
        long as after a use.
        """
        if self.busy:
            return Wanted(True, False, float("inf"))
        if self._since is None:
            return Wanted(False, False, float("inf"))
        if self.plan is None:
            self.plan = self._planned(self._since)
        idle = now - self._since
        if idle < self.plan.ttl:
            return Wanted(True, False, self._since + self.plan.ttl)
        if self.plan.ahead is None or idle >= self.plan.ahead[1]:
            return Wanted(False, False, float("inf"))
        begin, end = self.plan.ahead
        if idle < begin:
            return Wanted(False, False, self._since + begin)
        return Wanted(True, True, self._since + end)

    def told(self, now: float) -> tuple[float, str]:
        """The TTL and the reason, for people; while streams are open, those that would follow if the last ended now."""
        found = self.plan
        if found is None:
            since = now if self.busy or self._since is None else self._since
            found = self._planned(since)
        return found.ttl, reason(self.history, found, self.terms)

    def _planned(self, since: float) -> Plan:
        return plan(self.history, gauge(self.history, self.terms), since, self.terms)

    # Bulk

    def moved(self, service: str, count: int, seconds: float, now: float) -> None:
        """A stream of a service that this host calls has moved `count` bytes in `seconds`, and may go on."""
        heavy = is_bulk(count, seconds)
        share, seen = self._bulk.get(service, (float(heavy), now))
        share += (heavy - share) * _BULK_WEIGHT
        if heavy or service in self._bulk:
            self._bulk[service] = (share, now if heavy else seen)
            self.any_bulk = True

    def bulk(self, service: str, now: float) -> bool:
        """Whether a new stream of the service is likely to be heavy."""
        if service not in self._bulk:
            return False
        share, seen = self._bulk[service]
        if now - seen > BULK_MEMORY:
            del self._bulk[service]
            self.any_bulk = bool(self._bulk)
            return False
        return share >= BULK_SHARE


def is_bulk(count: int, seconds: float) -> bool:
    """Whether a stream that has moved so many bytes in so many seconds is heavy."""
    return count >= BULK_BYTES and count >= BULK_RATE * seconds
