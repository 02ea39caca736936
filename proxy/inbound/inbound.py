"""Delivering the streams that peers open, or refusing them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from control.api.messages import StreamDirection
from control.base.exposition import OTHER
from control.base.tokenbucket import TokenBucket
from proxy.config.schema import Config
from proxy.errors import CloseReason
from proxy.inbound.delivery import AtOnce, LocalService
from proxy.mux.frames import NAMESAKE, UNKNOWN_UID, Open
from proxy.pump.connecting import ConnectAttempt, Connector
from proxy.pump.descriptor import Descriptor
from proxy.pump.edges import Edge, caller_name
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket
from proxy.pump.ourselves import MAX_HOPS, Source, said
from proxy.pump.streamlog import StreamFacts, report_lane, stalled, stream_id
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.streamstats import StreamStats
from proxy.routing.allow import AllowRules

SLACK, FASTER = 4, 1.01
"""Streams that a peer may open at once beyond `limits.opens_per_second`, as what is opened at a steady rate arrives a
little less steadily; and how much faster its clock may be, which is more than any clock is."""


class Inbound(AtOnce):
    """Delivers the streams that peers open to local services, at once or not, or refuses them.

    Args:
        notice: takes what a peer says of this host's name (`mux.frames.NAMESAKE`), with the peer's name before it.
        streams: counts the open streams that a peer has opened. The others are as in `AtOnce`.
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
        super().__init__(allowed, connector, stats)
        self._notice, self._streams = notice, streams
        self._opens: dict[tuple[str, int], TokenBucket] = {}
        self._local_services = self._services_of(config)

    def adopt(self, config: Config, allowed: AllowRules) -> None:
        """Use another configuration for streams that are opened from now on. Raises nothing."""
        self.allowed = allowed
        self._local_services = self._services_of(config)
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

    def _too_many(self, peer: str, rate: int, now: float) -> bool:
        return not self._bucket(peer, rate).take(now)

    def _bucket(self, peer: str, rate: int) -> TokenBucket:
        """What counts a peer's opens on sessions in whose HELLO it was told `rate`."""
        bucket = self._opens.get((peer, rate))
        if bucket is None:
            bucket = self._opens[peer, rate] = TokenBucket(FASTER * rate, rate + SLACK)
        return bucket

    def excess(self, peer: str, sock: LocalSocket | Descriptor) -> str:
        """Why the peer does not get this new connection (`AtOnce`)."""
        shares, descriptor = self._descriptors, sock.fileno()
        if descriptor >= shares.ceiling:
            return "descriptors are nearly used up"
        held = self._streams(peer)
        return f"the peer's {held} streams have their share of descriptors" if held > shares.share(descriptor) else ""

    def _refuse(self, lane: Lane, call: Open, reason: CloseReason, detail: str = "") -> None:
        if call.service == NAMESAKE and reason is CloseReason.NO_SUCH_SERVICE:
            self._notice(lane.session.peer, call.caller)
            return lane.abort(reason)  # no stream, so neither counted nor logged as one
        if call.service in self._local_services:
            self.stats.refused.add(call, lane.session.peer, reason, detail, monotonic())
        Delivery(self, lane, call).refuse(reason, detail)

    def _connect(self, lane: Lane, call: Open, local: LocalService) -> None:
        Delivery(self, lane, call).start(local)


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
        self.edge.over(reason, lane.bytes_sent, lane.bytes_received)
        if (told := self._inbound.stats.log_of(self.service)) is not None:
            told.ended(self, reason, self._detail)
        if self._inbound.stats.end(reason):
            report_lane(lane, reason, self.service, self.direction, self._detail)

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
