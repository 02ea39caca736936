"""Who was refused by this host: which callers, at which of its services, for which reason, since when and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from proxy.errors import CloseReason
from proxy.mux.frames import Open

MOST = 50
"""Callers that are told apart at one service; of more, the one goes that has not been refused for the longest time."""
QUIET = 24 * 3600.0
"""Seconds after which somebody who was refused no more is forgotten."""


class RefusedCaller(NamedTuple):
    """`host`: where the caller is. `caller`: the service that it belongs to, or empty. `uid`: may be UNKNOWN_UID."""

    host: str
    caller: str
    uid: int
    reason: CloseReason


class RefusedTimes:
    """How often, when first and last: seconds (monotonic). `detail`: of the last time."""

    __slots__ = ("detail", "first", "last", "times")

    def __init__(self, now: float) -> None:
        self.first, self.last, self.times, self.detail = now, now, 0, ""


class RefusedCalls:
    """All of them. Only of services that this host offers, so that their number is bounded, too."""

    def __init__(self) -> None:
        self._services: dict[str, dict[RefusedCaller, RefusedTimes]] = {}

    def add(self, call: Open, host: str, reason: CloseReason, detail: str, now: float) -> None:
        """A caller on `host` was refused."""
        callers = self._services.setdefault(call.service, {})
        key = RefusedCaller(host, call.caller, call.uid, reason)
        found = callers.pop(key, None) or RefusedTimes(now)
        if len(callers) >= MOST:
            del callers[next(iter(callers))]
        callers[key] = found  # the last one now, as the order is that of the last times
        found.times += 1
        found.last, found.detail = now, detail

    def of(self, service: str, now: float) -> Iterator[tuple[RefusedCaller, RefusedTimes]]:
        """Those of a service, the latest first."""
        callers = self._services.get(service, {})
        for key in [key for key, found in callers.items() if now - found.last >= QUIET]:
            del callers[key]
        yield from reversed(list(callers.items()))

    def forget(self, kept: frozenset[str]) -> None:
        """These services are offered from now on, and no others."""
        self._services = {service: callers for service, callers in self._services.items() if service in kept}
