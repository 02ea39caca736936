"""Delivering a peer's stream to a local service."""

from __future__ import annotations

import socket
from collections import Counter, defaultdict

from control.messages import StreamDirection
from control.reading.addresses import TcpAddress
from proxy.config import Config, Service
from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.pump.bucket import Bucket
from proxy.pump.connecting import Attempt, Connector
from proxy.pump.lane import Lane
from proxy.pump.proxyheader import header
from proxy.pump.tally import Tally
from proxy.routing.allow import Allowed, describe


class Inbound:
    """Takes the streams that peers open (``pump.link.Calls``).

    Args:
        allowed: who may call which service.

    Attributes:
        open: streams now delivered or being delivered, by service.
    """

    def __init__(self, config: Config, allowed: Allowed, connector: Connector, tally: Tally) -> None:
        self.services = config.services
        self.allowed = allowed
        self.connector = connector
        self.open = Counter[str]()
        self.tally = tally
        self._rate = config.limits.opens_per_second
        self._opens = defaultdict[str, Bucket](lambda: Bucket(self._rate, self._rate))

    def adopt(self, config: Config, allowed: Allowed) -> None:
        """Take another configuration over, for calls to come. Raises nothing."""
        self.services, self.allowed = config.services, allowed
        if self._rate != config.limits.opens_per_second:
            self._rate = config.limits.opens_per_second
            self._opens.clear()

    def forget(self, peer: str) -> None:
        """The peer is none any more."""
        self._opens.pop(peer, None)

    def call(self, lane: Lane, call: Open) -> None:
        """Connect to the service, or refuse at once."""
        delivery = Delivery(self, lane, call)
        lane.owner = delivery
        service = self.services.get(call.service)
        if not self._opens[lane.link.peer].take(lane.since):
            delivery.refuse(CloseReason.OVERLOADED, f"the peer opens more than {self._rate} streams a second")
        elif service is None:
            delivery.refuse(CloseReason.NO_SUCH_SERVICE)
        elif not self.allowed.allows(call, lane.link.peer):
            delivery.refuse(CloseReason.NOT_ALLOWED, describe(call))
        else:
            delivery.start(service)


class Delivery:
    """One stream on its way to a service; afterwards the record of it."""

    __slots__ = ("_attempt", "_call", "_detail", "_inbound", "_offered", "lane", "service")
    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, lane: Lane, call: Open) -> None:
        self._inbound = inbound
        self._attempt: Attempt | None = None
        self._detail = ""
        self._call = call
        self._offered: Service | None = None
        self.lane, self.service = lane, call.service
        inbound.tally.begin()

    def refuse(self, reason: CloseReason, detail: str = "") -> None:
        """Do not even try."""
        self._detail = detail
        self.lane.abort(reason)

    def start(self, service: Service) -> None:
        """Connect."""
        self._offered = service
        self._inbound.open[self.service] += 1
        self._attempt = self._inbound.connector.connect(service.deliver, service.connect_timeout, self._connected)

    def _connected(self, sock: socket.socket | None, reason: CloseReason, detail: str) -> None:
        self._attempt = None
        self._detail = detail
        if sock is None:
            return self.lane.abort(reason)
        assert self._offered is not None
        self.lane.attach(sock, tcp=isinstance(self._offered.deliver, TcpAddress))
        link, tell = self.lane.link, self._offered.proxy_protocol == "v2"
        self.lane.start_called(
            header(self._call, link.peer, link.remote_address, link.local_address) if tell else b""
        )

    def lane_opened(self, lane: Lane) -> None:
        """Never: this host was called (Owner)."""

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """Never: this host was called (Owner)."""

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """The stream is over (Owner)."""
        inbound = self._inbound
        if self._offered is not None:
            inbound.open[self.service] -= 1
            if not inbound.open[self.service]:
                del inbound.open[self.service]
        if self._attempt is not None:
            self._attempt.cancel()
        if inbound.tally.end(reason):
            inbound.tally.report(
                reason,
                since=lane.since,
                service=self.service,
                direction="inbound",
                peer=lane.link.peer,
                detail=self._detail,
                sent=lane.bytes_sent,
                received=lane.bytes_received,
            )
