"""Delivering a peer's stream to a local service.

A service's Unix socket usually accepts a connection at once. The lane then holds all that is to be known about the
stream, and its caller's `KnownCaller` the rest, so no `Delivery` is made (the same as on the calling side,
`proxy.outbound.acceptor`). Every other stream, including each one that is refused, has a `Delivery` until it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

from control.api.messages import StreamDirection
from control.base.exposition import OTHER
from control.base.reading.addresses import UnixAddress
from control.base.tokenbucket import TokenBucket
from proxy.config.schema import Config, ServiceConfig
from proxy.core.syscalls import now
from proxy.errors import CloseReason
from proxy.mux.frames import NAMESAKE, UNKNOWN_UID, Open
from proxy.pump.connecting import ConnectAttempt, Connector
from proxy.pump.descriptor import Descriptor
from proxy.pump.edges import Edge, caller_name
from proxy.pump.knownstream import KnownStream
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket
from proxy.pump.ourselves import MAX_HOPS, Source, said
from proxy.pump.proxyheader import header
from proxy.pump.streamcounts import DeliveredCount, Tallies
from proxy.pump.streamlog import StreamFacts, stalled, stream_id
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.streamstats import StreamStats
from proxy.routing.allow import AllowRules, describe

SLACK, FASTER = 4, 1.01
"""Streams that a peer may open at once beyond `limits.opens_per_second`, as what is opened at a steady rate arrives a
little less steadily; and how much faster its clock may be, which is more than any clock is."""
MOST_KEPT = 1024
"""Callers of a service that are kept. When there would be more, all are dropped."""


class Inbound:
    """Delivers the streams that peers open to local services, or refuses them (``pump.session.CallHandler``).

    Args:
        allowed: who may call which service.
        notice: takes what a peer says of this host's name (`mux.frames.NAMESAKE`), with the peer's name before it.
        streams: counts the open streams that a peer has opened.

    Attributes:
        open: by service, the number of streams that are delivered or being delivered.
    """

    def __init__(
        self,
        config: Config,
        allowed: AllowRules,
        connector: Connector,
        stats: StreamStats,
        notice: Callable[[str, str], None] = lambda peer, text: None,
        streams: Callable[[str], int] = lambda peer: 0,
    ) -> None:
        self._notice, self._streams = notice, streams
        self._descriptors = connector.pump.descriptors
        self.stats = stats
        self.open = Tallies()
        self._local_services = self._services_of(config)
        self.allowed = allowed
        self.connector = connector
        self._opens: dict[tuple[str, int], TokenBucket] = {}

    def adopt(self, config: Config, allowed: AllowRules) -> None:
        """Use another configuration for streams that are opened from now on. Raises nothing."""
        self._local_services, self.allowed = self._services_of(config), allowed
        self.stats.refused.forget(frozenset(self._local_services))
        self.open.keep(self._local_services)

    def _services_of(self, config: Config) -> dict[str, LocalService]:
        return {name: LocalService(self, name, service) for name, service in config.services.items()}

    def anew(self, service: str) -> None:
        """Who hears of a service's streams has changed."""
        if (local := self._local_services.get(service)) is not None:
            self._local_services[service] = LocalService(self, service, local.config)

    def offers(self, service: str) -> bool:
        """Whether this host offers it."""
        return service in self._local_services

    def forget(self, peer: str) -> None:
        """The peer was removed: drop the count of its opens."""
        for local in self._local_services.values():
            local.forget(peer)
        self._opens = {key: bucket for key, bucket in self._opens.items() if key[0] != peer}

    def call(self, lane: Lane, call: Open) -> None:
        """Connect to the service, or refuse the stream."""
        service, peer = call.service, lane.session.peer
        local = self._local_services.get(service)
        rate = lane.session.local.opens_per_second
        if rate is not None and not self._bucket(peer, rate).take(lane.since):
            self._refuse(lane, call, CloseReason.OVERLOADED, f"the peer opens more than {rate} streams a second")
        elif local is None:
            if service == NAMESAKE:
                self._notice(peer, call.caller)
                return lane.abort(CloseReason.NO_SUCH_SERVICE)  # no stream, so neither counted nor logged as one
            self._refuse(lane, call, CloseReason.NO_SUCH_SERVICE)
        elif self.allowed.rules and not self.allowed.allows(call, peer):
            self._refuse(lane, call, CloseReason.NOT_ALLOWED, describe(call))
        elif (
            local.at_once
            and (call.via is None or not self.connector.own.passed(call.via))
            and (owner := self.connector.at_once(local.at_once)) is not None
        ):
            if owner.fileno() >= self._descriptors.scarce and (why := self.excess(peer, owner)):
                owner.close()
                return self._refuse(lane, call, CloseReason.LOCAL_SHORTAGE, why)
            self.stats.opened += 1
            local.open.count += 1
            caller = local.caller(peer, call)
            caller.edge.opened += 1
            caller.edge.failing_since = None
            lane.observer = caller
            local.took(lane)
            lane.attach(owner, False)
            lane.start_called(local.preface(lane, call) if local.tells else b"")
        else:
            Delivery(self, lane, call).start(local)

    def excess(self, peer: str, sock: LocalSocket | Descriptor) -> str:
        """Why the peer does not get this new connection to a service: descriptors are scarce, and it has its share of
        them or they are nearly used up. Empty: it gets it.
        """
        shares, descriptor = self._descriptors, sock.fileno()
        if descriptor >= shares.ceiling:
            return "descriptors are nearly used up"
        held = self._streams(peer)
        return f"the peer's {held} streams have their share of descriptors" if held > shares.share(descriptor) else ""

    def _bucket(self, peer: str, rate: int) -> TokenBucket:
        """What counts a peer's opens on sessions in whose HELLO it was told `rate`."""
        bucket = self._opens.get((peer, rate))
        if bucket is None:
            bucket = self._opens[peer, rate] = TokenBucket(FASTER * rate, rate + SLACK)
        return bucket

    def _refuse(self, lane: Lane, call: Open, reason: CloseReason, detail: str = "") -> None:
        if call.service in self._local_services:
            self.stats.refused.add(call, lane.session.peer, reason, detail, monotonic())
        Delivery(self, lane, call).refuse(reason, detail)

    def report(self, lane: Lane, reason: CloseReason, service: str, detail: str) -> None:
        """Log a stream that has ended."""
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
    """A service that this host offers.

    Attributes:
        path: the path of its Unix socket; empty if it has a TCP address.
        at_once: the same, for streams for which no `Delivery` need be made; empty: all need one, as somebody hears of
            each (`StreamStats.log_of`).
        open: its streams that are delivered or being delivered.
        tells: whether it gets a PROXY header that says who calls.
        delivered: of its streams; None: there were none yet. `took` counts those that have no `Delivery`.
    """

    def __init__(self, inbound: Inbound, name: str, config: ServiceConfig) -> None:
        self._inbound = inbound
        self.service, self.config = name, config
        self.path = os.fsencode(config.deliver.path) if isinstance(config.deliver, UnixAddress) else b""
        self.at_once = self.path if inbound.stats.log_of(name) is None else b""
        self.tells = config.proxy_protocol == "v2"
        self.delivered: DeliveredCount | None = None
        self.open = inbound.open[name]
        self._sampler = inbound.stats.counts.deliveries
        self._callers: dict[tuple[str, int, str], KnownCaller] = {}
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
        self._callers = {key: caller for key, caller in self._callers.items() if key[0] != peer}

    def caller(self, peer: str, call: Open) -> KnownCaller:
        """What observes the lanes of this caller, by peer, user and service of the caller."""
        key = (peer, call.uid, call.caller)
        caller = self._callers.get(key)
        if caller is None:
            if len(self._callers) >= MOST_KEPT:
                self._callers.clear()
            caller = self._callers[key] = KnownCaller(self._inbound, self.service, call, peer)
        return caller

    def forget_edges(self) -> None:
        """Find them again (``pump.edges.EdgeHolder``)."""
        self._callers.clear()

    def preface(self, lane: Lane, call: Open) -> bytes:
        """The PROXY header for a stream."""
        session = lane.session
        link = session.link
        return header(call, session.peer, link.remote_address, link.local_address)


class KnownCaller(StreamObserver):
    """The observer (``pump.streamobserver.StreamObserver``) of the lanes of one caller for which no `Delivery` was
    made.
    """

    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, service: str, call: Open, peer: str) -> None:
        self._inbound, self.service, self._call = inbound, service, call
        self._open = inbound.open[service]
        self._count = inbound.stats.counts.stream(service, peer, self.direction)
        self.edge: Edge = inbound.stats.edges.find("inbound", caller_name(call), service, peer)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        inbound, count, ended = self._inbound, self._count, lane  # whose types are known
        self._open.count -= 1
        count.end(lane, reason)
        self.edge.over(reason, ended.counted_sent, ended.counted_received, now())
        if (told := inbound.stats.log_of(self.service)) is not None:
            told.ended(KnownStream(lane, self.direction, self._call), reason, "")
        if inbound.stats.end(reason):
            inbound.report(lane, reason, self.service, "")


class Delivery(StreamObserver):
    """One stream that is being connected to a service, and later that stream's observer; or one that is refused."""

    __slots__ = (
        "_attempt",
        "_call",
        "_counted_as",
        "_detail",
        "_inbound",
        "_local_service",
        "_opened_at",
        "_source",
        "edge",
        "lane",
        "service",
    )
    direction: StreamDirection = "inbound"

    def __init__(self, inbound: Inbound, lane: Lane, call: Open) -> None:
        self._inbound = inbound
        self._attempt: ConnectAttempt | None = None
        self._detail = ""
        self._opened_at = 0.0
        self._call = call
        self._local_service: LocalService | None = None
        self._source: Source | None = None
        self.lane, self.service = lane, call.service
        lane.observer = self
        inbound.stats.opened += 1
        # Peers may call whatever they like: what is not offered here has no name of its own.
        self._counted_as = call.service if inbound.offers(call.service) else OTHER
        inbound.stats.counts.delivered(self._counted_as).opened += 1
        self.edge: Edge = inbound.stats.edges.find("inbound", caller_name(call), self._counted_as, lane.session.peer)
        self.edge.opened += 1

    def refuse(self, reason: CloseReason, detail: str = "") -> None:
        """Refuse the stream without trying to connect."""
        self._detail = detail
        self.lane.abort(reason)

    def start(self, local: LocalService) -> None:
        """Connect to the service, or refuse the stream if it goes round in a circle."""
        connector, via, hops = self._inbound.connector, self._call.via, 0
        if via is not None and (hops := connector.own.passed(via)) > MAX_HOPS:
            return self.refuse(CloseReason.LOOP, said(hops))
        self._local_service = local
        self._inbound.open[self.service].count += 1
        config = local.config
        self._attempt = connector.connect(config.deliver, config.connect_timeout, self._connected, hops, config.source)

    def _connected(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        if self._attempt is not None:
            self._source = self._attempt.source
        self._attempt = None
        self._detail = detail
        if sock is None:
            return self.lane.abort(reason)
        inbound = self._inbound
        scarce = sock.fileno() >= inbound.connector.pump.descriptors.scarce
        if scarce and (why := inbound.excess(self.lane.session.peer, sock)):
            sock.close()
            return self.refuse(CloseReason.LOCAL_SHORTAGE, why)
        local = self._local_service
        assert local is not None
        local.time(self.lane)
        self.lane.attach(sock, not local.path)
        self._opened_at = monotonic()
        self.edge.failing_since = None
        if (told := inbound.stats.log_of(self.service)) is not None:
            told.opened(self)
        self.lane.start_called(local.preface(self.lane, self._call) if local.tells else b"")

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        if self._local_service is not None:
            self._inbound.open[self.service].count -= 1
        if self._attempt is not None:
            self._attempt.cancel()
        self._inbound.connector.own.drop(self._source)
        self._inbound.stats.counts.stream(self._counted_as, lane.session.peer, self.direction).end(lane, reason)
        self.edge.over(reason, lane.bytes_sent, lane.bytes_received, monotonic())
        if (told := self._inbound.stats.log_of(self.service)) is not None:
            told.ended(self, reason, self._detail)
        if self._inbound.stats.end(reason):
            self._inbound.report(lane, reason, self.service, self._detail)

    @property
    def stream_id(self) -> str:
        """As the calling host has it, too (LoggedStream)."""
        return stream_id(self.lane)

    def facts(self) -> StreamFacts:
        """What is known of the stream now (LoggedStream)."""
        lane, call = self.lane, self._call
        return StreamFacts(
            service=self.service,
            direction="inbound",
            caller=call.caller,
            uid=None if call.uid == UNKNOWN_UID else call.uid,
            pid=None,
            peer=lane.session.peer,
            link=lane.session.name,
            tries=1,
            age=lane.age,
            wait=None,
            open=self._opened_at - lane.since if self._opened_at else None,
            first_byte=None,
            stalled=stalled(lane.stalls, monotonic()),
            sent=lane.bytes_sent,
            received=lane.bytes_received,
        )
