"""Delivering a peer's stream to a local service."""

from __future__ import annotations

import socket

from control.messages import StreamDirection
from proxy.addresses import TcpAddress
from proxy.config import Service
from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.pump.connecting import Attempt, Connector
from proxy.pump.lane import Lane
from proxy.pump.tally import Tally


class Inbound:
    """Takes the streams that peers open (``pump.link.Calls``).

    Attributes:
        open: streams now delivered or being delivered, by service.
    """

    def __init__(self, services: dict[str, Service], connector: Connector, tally: Tally) -> None:
        self.services = services
        self.connector = connector
        self.open = dict.fromkeys(services, 0)
        self.tally = tally

    def call(self, lane: Lane, call: Open) -> None:
        """Connect to the service, or refuse at once."""
        delivery = Delivery(self, lane, call.service)
        lane.owner = delivery
        service = self.services.get(call.service)
        if service is None:
            lane.abort(CloseReason.NO_SUCH_SERVICE)
        else:
            delivery.start(service)


class Delivery:
    """One stream on its way to a service; afterwards the record of it."""

    __slots__ = ("_attempt", "_detail", "_inbound", "_tcp", "lane", "service")
    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, lane: Lane, service: str) -> None:
        self._inbound = inbound
        self._attempt: Attempt | None = None
        self._detail = ""
        self.lane, self.service = lane, service
        inbound.tally.begin()

    def start(self, service: Service) -> None:
        """Connect."""
        self._inbound.open[self.service] += 1
        self._tcp = isinstance(service.deliver, TcpAddress)
        self._attempt = self._inbound.connector.connect(service.deliver, service.connect_timeout, self._connected)

    def _connected(self, sock: socket.socket | None, reason: CloseReason, detail: str) -> None:
        self._attempt = None
        self._detail = detail
        if sock is None:
            self.lane.abort(reason)
        else:
            self.lane.attach(sock, tcp=self._tcp)
            self.lane.start_called()

    def lane_opened(self, lane: Lane) -> None:
        """Never: this host was called (Owner)."""

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """Never: this host was called (Owner)."""

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """The stream is over (Owner)."""
        inbound = self._inbound
        if self.service in inbound.open:
            inbound.open[self.service] -= 1
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
