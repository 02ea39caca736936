"""Hosts that fail are left alone for a while: an outlier's ejection (sans-IO).

What counts is an open that failed, for one service at one host: a stream that was delivered is a success, whatever the
application makes of it. The numbers are Envoy's (outlier detection: 5 consecutive failures, 30 s, at most 300 s), with
two differences. The time doubles, as linkerd's backoff does, because a host that has failed for a minute has mostly
left. And after it one failure is enough for the next one: who was ejected is on probation until a stream was delivered.

Nobody is ejected for good, and never all: see `proxy.routing.balance.choose`.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.errors import CloseReason

FAILURES = 5.0
BASE = 30.0
CEILING = 300.0
"""Seconds of the first ejection, and of the longest."""
MAX_RECORDS = 10_000
"""Services at hosts whose failures are remembered; beyond it the longest known is forgotten."""

WEIGHTS = {
    CloseReason.PEER_UNREACHABLE: 1.0,
    CloseReason.LINK_LOST: 1.0,
    CloseReason.PEER_TIMEOUT: 1.0,
    CloseReason.CONNECT_FAILED: 1.0,
    CloseReason.CONNECT_TIMEOUT: 1.0,
    CloseReason.NO_SUCH_SERVICE: 1.0,
    CloseReason.DRAINING: 1.0,
    CloseReason.OVERLOADED: 0.5,
    CloseReason.OVER_BUDGET: 0.5,
}
"""What an open that ended so counts. One refused for overload counts half: the host is there and works, its streams
weigh against it anyway, and to drive everybody away from it would only overload the next. All other reasons are not the
host's failure (a rule against the caller, an end that the caller made)."""


@dataclass(slots=True)
class FailureRecord:
    """What is held against a service at a host."""

    failures: float = 0.0
    times: int = 0
    """Ejections in a row."""
    until: float = 0.0


class Ejections:
    """See the module's text. Times are seconds by any clock that never goes back; only who has failed costs memory.

    Attributes:
        held: what is held against whom, by service and host; read only.
        hosts: by service, those against which anything is held; read only. (Each stream asks whether its service is in
            it, which costs a quarter of what a method takes; what another service's hosts did costs it nothing.)
    """

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], FailureRecord] = {}
        self.hosts: dict[str, set[str]] = {}

    def failed(self, service: str, host: str, reason: CloseReason, now: float) -> float | None:
        """An open has failed. Returns the seconds that the host is left alone for, if this was the one too many."""
        weight = WEIGHTS.get(reason)
        if weight is None:
            return None
        key = (service, host)
        record = self.held.get(key)
        if record is None:
            if len(self.held) >= MAX_RECORDS:
                self._drop(next(iter(self.held)))
            record = self.held[key] = FailureRecord()
            self.hosts.setdefault(service, set()).add(host)
        if now < record.until:
            return None  # an open from before the ejection, or one made because all hosts are ejected
        record.failures += weight
        if record.failures < (1.0 if record.times else FAILURES):
            return None
        seconds = min(BASE * 2.0 ** min(record.times, 10), CEILING)
        record.failures, record.times, record.until = 0.0, record.times + 1, now + seconds
        return seconds

    def succeeded(self, service: str, host: str) -> None:
        """A stream was delivered: nothing is held against the host any more."""
        if (service, host) in self.held:
            self._drop((service, host))

    def forget(self, host: str) -> None:
        """Hold nothing against the host any more: its proxy has restarted, or it has left."""
        for key in [key for key in self.held if key[1] == host]:
            self._drop(key)

    def ejected(self, service: str, now: float) -> frozenset[str]:
        """The hosts that are left alone."""
        hosts = self.hosts.get(service, ())
        return frozenset(host for host in hosts if now < self.held[service, host].until)

    def record(self, service: str, host: str) -> FailureRecord | None:
        """What is held against a host, if anything."""
        return self.held.get((service, host))

    def _drop(self, key: tuple[str, str]) -> None:
        service, host = key
        del self.held[key]
        self.hosts[service].discard(host)
        if not self.hosts[service]:
            del self.hosts[service]
