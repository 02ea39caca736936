"""Delivering a peer's stream to a local service.

A service's Unix socket mostly takes a connection at once. Nothing need be remembered of such a stream but its lane, so
no object of its own is made (as on the calling side, `proxy.outbound.acceptor`); any other is a `Delivery` while it
lasts.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict

from control.api.messages import StreamDirection
from control.base.reading.addresses import UnixAddress
from control.base.tokenbucket import TokenBucket
from proxy.config.schema import Config, ServiceConfig
from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.pump.connecting import ConnectAttempt, Connector
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket
from proxy.pump.proxyheader import header
from proxy.pump.streamstats import StreamStats
from proxy.routing.allow import AllowRules, describe


class Inbound:
    """Takes the streams that peers open (``pump.session.CallHandler``).

    Args:
        allowed: who may call which service.

    Attributes:
        open: streams now delivered or being delivered, by service.
    """

    def __init__(self, config: Config, allowed: AllowRules, connector: Connector, stats: StreamStats) -> None:
        self._offers = self._offered_by(config)
        self.allowed = allowed
        self.connector = connector
        self.open = Counter[str]()
        self.stats = stats
        self._rate = config.limits.opens_per_second
        self._opens = defaultdict[str, TokenBucket](lambda: TokenBucket(self._rate, self._rate))

    def adopt(self, config: Config, allowed: AllowRules) -> None:
        """Take another configuration over, for calls to come. Raises nothing."""
        self._offers, self.allowed = self._offered_by(config), allowed
        self.open = Counter({name: count for name, count in self.open.items() if count})
        if self._rate != config.limits.opens_per_second:
            self._rate = config.limits.opens_per_second
            self._opens.clear()

    def _offered_by(self, config: Config) -> dict[str, LocalService]:
        return {name: LocalService(self, name, service) for name, service in config.services.items()}

    def forget(self, peer: str) -> None:
        """The peer is none any more."""
        self._opens.pop(peer, None)

    def call(self, lane: Lane, call: Open) -> None:
        """Connect to the service, or refuse at once."""
        service, peer = call.service, lane.session.peer
        offer = self._offers.get(service)
        if not self._opens[peer].take(lane.since):
            self._refuse(lane, call, CloseReason.OVERLOADED, f"the peer opens more than {self._rate} streams a second")
        elif offer is None:
            self._refuse(lane, call, CloseReason.NO_SUCH_SERVICE)
        elif self.allowed.rules and not self.allowed.allows(call, peer):
            self._refuse(lane, call, CloseReason.NOT_ALLOWED, describe(call))
        elif offer.path and (sock := self.connector.at_once(offer.path)) is not None:
            self.stats.opened += 1
            self.open[service] += 1
            lane.observer = offer
            lane.attach(sock, False)
            lane.start_called(offer.preface(lane, call) if offer.tells else b"")
        else:
            Delivery(self, lane, call).start(offer)

    def _refuse(self, lane: Lane, call: Open, reason: CloseReason, detail: str = "") -> None:
        Delivery(self, lane, call).refuse(reason, detail)

    def report(self, lane: Lane, reason: CloseReason, service: str, detail: str) -> None:
        """Log a stream that is over."""
        self.stats.report(
            reason,
            since=lane.since,
            service=service,
            direction="inbound",
            peer=lane.session.peer,
            detail=detail,
            sent=lane.bytes_sent,
            received=lane.bytes_received,
        )


class LocalService:
    """A service of this host, and the owner (``pump.streamobserver.StreamObserver``) of the lanes that it took at once.

    Attributes:
        path: of its Unix socket; empty for a TCP address.
        tells: whether it is told who calls.
    """

    __slots__ = ("_inbound", "config", "path", "service", "tells")
    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, name: str, config: ServiceConfig) -> None:
        self._inbound = inbound
        self.service, self.config = name, config
        self.path = os.fsencode(config.deliver.path) if isinstance(config.deliver, UnixAddress) else b""
        self.tells = config.proxy_protocol == "v2"

    def preface(self, lane: Lane, call: Open) -> bytes:
        """What it is told."""
        session = lane.session
        link = session.link
        return header(call, session.peer, link.remote_address, link.local_address)

    def lane_opened(self, lane: Lane) -> None:
        """Never: this host was called (Owner)."""

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """Never: this host was called (Owner)."""

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """The stream is over (Owner)."""
        inbound = self._inbound
        inbound.open[self.service] -= 1
        if reason in inbound.stats.unlogged:
            inbound.stats.ended += 1
        elif inbound.stats.end(reason):
            inbound.report(lane, reason, self.service, "")


class Delivery:
    """One stream on its way to a service; afterwards the record of it."""

    __slots__ = ("_attempt", "_call", "_detail", "_inbound", "_offered", "lane", "service")
    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, lane: Lane, call: Open) -> None:
        self._inbound = inbound
        self._attempt: ConnectAttempt | None = None
        self._detail = ""
        self._call = call
        self._offered: LocalService | None = None
        self.lane, self.service = lane, call.service
        lane.observer = self
        inbound.stats.opened += 1

    def refuse(self, reason: CloseReason, detail: str = "") -> None:
        """Do not even try."""
        self._detail = detail
        self.lane.abort(reason)

    def start(self, offer: LocalService) -> None:
        """Connect."""
        self._offered = offer
        self._inbound.open[self.service] += 1
        config = offer.config
        self._attempt = self._inbound.connector.connect(config.deliver, config.connect_timeout, self._connected)

    def _connected(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        self._attempt = None
        self._detail = detail
        if sock is None:
            return self.lane.abort(reason)
        offer = self._offered
        assert offer is not None
        self.lane.attach(sock, not offer.path)
        self.lane.start_called(offer.preface(self.lane, self._call) if offer.tells else b"")

    def lane_opened(self, lane: Lane) -> None:
        """Never: this host was called (Owner)."""

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """Never: this host was called (Owner)."""

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """The stream is over (Owner)."""
        if self._offered is not None:
            self._inbound.open[self.service] -= 1
        if self._attempt is not None:
            self._attempt.cancel()
        if self._inbound.stats.end(reason):
            self._inbound.report(lane, reason, self.service, self._detail)
