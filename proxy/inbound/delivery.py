"""Delivering a peer's stream to a local service at once.

A service's Unix socket usually accepts a connection at once. The lane then holds all that is to be known about the
stream, and its caller's `KnownCaller` the rest (the same as on the calling side, `proxy.outbound.acceptor`). Every
other stream, including each one that is refused, has a `Delivery` until it ends (`proxy.inbound.inbound`).
"""

from __future__ import annotations

import os
from time import monotonic

from control.api.messages import StreamDirection
from control.base.reading.addresses import UnixAddress
from proxy.config.schema import ServiceConfig
from proxy.core.syscalls import connect_unix
from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.pump.connecting import Connector
from proxy.pump.descriptor import Descriptor, owner_of
from proxy.pump.edges import Edge, caller_name
from proxy.pump.knownstream import KnownStream
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket
from proxy.pump.proxyheader import header
from proxy.pump.session import CallHandler
from proxy.pump.streamcounts import DeliveredCount, Tallies
from proxy.pump.streamlog import report_lane
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.streamstats import StreamStats
from proxy.routing.allow import AllowRules, describe

MOST_KEPT = 1024
"""Callers of a service that are kept. When there would be more, all are dropped."""


class AtOnce(CallHandler):
    """Delivers the streams that peers open where the service takes them at once.

    Args:
        allowed: who may call which service.

    Attributes:
        open: by service, the number of streams that are delivered or being delivered.
    """

    def __init__(self, allowed: AllowRules, connector: Connector, stats: StreamStats) -> None:
        self._descriptors, self._budget = connector.pump.descriptors, connector.pump.budget
        self.stats = stats
        self.open = Tallies()
        self._local_services: dict[str, LocalService] = {}
        self.allowed = allowed
        self.connector = connector

    def call(self, lane: Lane, call: Open) -> None:
        """Connect to the service, or refuse the stream."""
        peer, local = lane.session.peer, self._local_services.get(call.service)
        rate = lane.session.local.opens_per_second
        if rate is not None and self._too_many(peer, rate, lane.since):
            self._refuse(lane, call, CloseReason.OVERLOADED, f"the peer opens more than {rate} streams a second")
        elif local is None:
            self._refuse(lane, call, CloseReason.NO_SUCH_SERVICE)
        elif local.guarded and not self.allowed.allows(call, peer):
            self._refuse(lane, call, CloseReason.NOT_ALLOWED, describe(call))
        elif (
            local.at_once
            and ((via := call.via) is None or not self.connector.own.passed(via))
            and (fd := connect_unix(local.at_once)) >= 0  # if not, `_connect` says why, or waits
        ):
            owner = owner_of(fd, self._budget.send_buffer)
            if fd >= self._descriptors.scarce and (why := self.excess(peer, owner)):
                owner.close()
                return self._refuse(lane, call, CloseReason.LOCAL_SHORTAGE, why)
            self.stats.opened += 1
            local.open.count += 1
            caller = local.caller(peer, call if via is None else call._replace(via=None))
            caller.edge.opened += 1
            caller.edge.failing_since = None
            lane.observer = caller
            local.took(lane)
            lane.attach(owner, False)
            lane.start_called(local.preface(lane, call) if local.tells else b"")
        else:
            self._connect(lane, call, local)

    def _too_many(self, peer: str, rate: int, now: float) -> bool:
        """Count one more open of the peer's, which was told `rate`. Whether it opens more than so many a second."""
        raise NotImplementedError

    def excess(self, peer: str, sock: LocalSocket | Descriptor) -> str:
        """Why the peer does not get this new connection to a service: descriptors are scarce, and it has its share of
        them or they are nearly used up. Empty: it gets it.
        """
        raise NotImplementedError

    def _refuse(self, lane: Lane, call: Open, reason: CloseReason, detail: str = "") -> None:
        """Refuse the stream."""
        raise NotImplementedError

    def _connect(self, lane: Lane, call: Open, local: LocalService) -> None:
        """Connect to the service, which may take time."""
        raise NotImplementedError


class LocalService:
    """A service that this host offers.

    Attributes:
        path: the path of its Unix socket; empty if it has a TCP address.
        at_once: the same, for streams for which no `Delivery` need be made; empty: all need one, as somebody hears of
            each (`Totals.log_of`).
        guarded: whether rules say who may call it.
        open: its streams that are delivered or being delivered.
        tells: whether it gets a PROXY header that says who calls.
        delivered: of its streams; None: there were none yet. `took` counts those that have no `Delivery`.
    """

    def __init__(self, inbound: AtOnce, name: str, config: ServiceConfig) -> None:
        self._inbound = inbound
        self.service, self.config = name, config
        self.path = os.fsencode(config.deliver.path) if isinstance(config.deliver, UnixAddress) else b""
        self.at_once = self.path if inbound.stats.log_of(name) is None else b""
        self.guarded, self.tells = name in inbound.allowed.rules, config.proxy_protocol == "v2"
        self.delivered: DeliveredCount | None = None
        self.open = inbound.open[name]
        self._sampler, self._kept = inbound.stats.counts.deliveries, 0
        self._callers: dict[str, dict[Open, KnownCaller]] = {}
        inbound.stats.edges.kept_by(self)

    def took(self, lane: Lane) -> None:
        """The service has taken a stream at once: count it."""
        delivered = self.delivered
        if delivered is None:
            delivered = self.named()
        delivered.opened += 1
        self.time(lane)

    def time(self, lane: Lane) -> None:
        """The service has taken a connection: record how long that took, if it is one of those that are recorded."""
        self._sampler.left -= 1
        if not self._sampler.left:
            now = monotonic()
            (self.delivered or self.named()).connect.observe(now - lane.since, self._sampler.picked(now))

    def named(self) -> DeliveredCount:
        """What counts its streams, from the first one on."""
        self.delivered = found = self._inbound.stats.counts.delivered(self.service)
        return found

    def forget(self, peer: str) -> None:
        """The peer was removed: if it comes back, its streams may be counted anew."""
        self._kept -= len(self._callers.pop(peer, ()))

    def caller(self, peer: str, call: Open) -> KnownCaller:
        """What observes the lanes of this caller, by peer, user and service of the caller. (What is looked for is
        mostly the very `call` that is kept: `frames` reads the same words once. So it costs no comparison.)
        """
        of_peer = self._callers.get(peer)
        caller = None if of_peer is None else of_peer.get(call)
        if caller is None:
            if self._kept >= MOST_KEPT:
                self.forget_edges()
            self._kept += 1
            caller = KnownCaller(self._inbound, self.service, call, peer)
            self._callers.setdefault(peer, {})[call] = caller
        return caller

    def forget_edges(self) -> None:
        """Find them again (``pump.edges.EdgeHolder``)."""
        self._callers, self._kept = {}, 0

    def preface(self, lane: Lane, call: Open) -> bytes:
        """The PROXY header for a stream."""
        session = lane.session
        link = session.link
        return header(call, session.peer, link.remote_address, link.local_address)


class KnownCaller(StreamObserver):
    """The observer of the lanes of one caller that were delivered at once."""

    direction: StreamDirection = "inbound"

    def __init__(self, inbound: AtOnce, service: str, call: Open, peer: str) -> None:
        self._inbound, self.service, self._call = inbound, service, call
        self._open = inbound.open[service]
        self._count = inbound.stats.counts.stream(service, peer, self.direction)
        self.edge: Edge = inbound.stats.edges.find("inbound", caller_name(call), service, peer)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        inbound, count, ended = self._inbound, self._count, lane  # whose types are known
        self._open.count -= 1
        count.end(lane, reason)
        self.edge.over(reason, ended.counted_sent, ended.counted_received)
        if (told := inbound.stats.log_of(self.service)) is not None:
            told.ended(KnownStream(lane, self.direction, self._call), reason, "")
        if inbound.stats.end(reason):
            report_lane(lane, reason, self.service, "inbound")
