"""Reads the numbers of a proxy's streams, links and routes from its parts, for one scrape.

Each reader is an iterator that stops after every piece of work, a few µs long, so that whoever drives it can let others
run. It must cope with what those change: it goes through copies, and asks again what it finds there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from time import monotonic

import trio

from control.base.exposition import OTHER, Family, Labels, Readings
from proxy.config.schema import Config
from proxy.errors import CloseReason
from proxy.outbound.queues import ListenQueues
from proxy.outbound.upstreams import Outbound
from proxy.pool.peercounts import PeerCounts
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pump.seriesbudget import Named, SeriesBudget, everybody
from proxy.pump.streamcounts import CalledCount, DeliveredCount, StreamCounts
from proxy.telemetry.meshview import state_of
from proxy.telemetry.metrics import catalog

LABELS = {reason: reason.label for reason in CloseReason}
UPSTREAM_SERIES = 4
"""Of each upstream."""


class NetworkReader:
    """Args:
    config: returns the one that the proxy runs with.
    counts, peers: what streams and links have done. `close` it in the end.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        pools: Pools,
        outbound: Outbound,
        counts: StreamCounts,
        peers: PeerCounts,
        budget: SeriesBudget,
    ) -> None:
        self._config, self._pools, self._outbound, self._context = config, pools, outbound, outbound.context
        self._queues = ListenQueues()
        self._counts, self._peers = counts, peers
        self._upstreams: Named[str, object] = Named(budget, object, UPSTREAM_SERIES, lambda name: OTHER)

    def close(self) -> None:
        """Read no more. Idempotent."""
        self._queues.close()

    def label(self, family: Family, labels: Labels) -> Labels:
        """The labels under which what another process has counted is counted here."""
        found = dict(zip(family.labels, labels, strict=True))
        service, peer, direction = found.get("service"), found.get("peer"), found.get("direction", "outbound")
        if service is not None and peer is not None:
            found["service"], found["peer"], _ = self._counts.label(service, peer, direction)
        elif service is not None:
            found["service"] = self._of_service(family, direction).label(service)
        elif peer:
            found["peer"] = self._peers.of.label(peer)
        return tuple(found.values())

    def known(self, family: Family, labels: Labels) -> bool:
        """Whether it is still counted under these labels here."""
        found = dict(zip(family.labels, labels, strict=True))
        service, peer, direction = found.get("service"), found.get("peer"), found.get("direction", "outbound")
        if service is not None and peer is not None:
            return service == OTHER or (service, peer, direction) in self._counts.streams
        if service is not None:
            return service == OTHER or service in self._of_service(family, direction).all
        return not peer or peer == OTHER or peer in self._peers.of.all

    def _of_service(self, family: Family, direction: str) -> Named[str, CalledCount] | Named[str, DeliveredCount]:
        inbound = family is catalog.SERVICE_CONNECT or direction == "inbound"
        return self._counts.delivered if inbound else self._counts.called

    def read(self, readings: Readings) -> Iterator[None]:
        """All of it."""
        return chain(
            self._forget(), self._open(readings), self._streams(readings), self._links(readings), self._routes(readings)
        )

    def _forget(self) -> Iterator[None]:
        """What has left the map."""
        config = self._config()
        services, pools = {*self._context.called, *config.services}, {pool.name for pool in self._pools.everywhere}
        yield from self._counts.forget(services, {*config.peers, *pools})
        yield from self._peers.of.forget(everybody({*config.peers, *pools}, OTHER))
        yield from self._upstreams.forget(everybody(config.upstreams, OTHER))

    # Streams

    def _open(self, readings: Readings) -> Iterator[None]:
        """Those that are open, which are counted up to now."""
        counts, found = self._counts, Counter[tuple[str, str, str]]()
        for session in [session for pool in self._pools.everywhere for session in pool.sessions]:
            for lane in list(session.streams.values()):
                if lane.id in session.streams and session.streams[lane.id] is lane and lane.observer.service:
                    key = self._known(lane.observer.service, session.peer, lane.observer.direction)
                    counts.stream(*key).look(lane)
                    found[counts.label(*key)] += 1
                yield
        for splice, call in list(self._context.splices.items()):
            if splice in self._context.splices:
                counts.stream(call.service, "", "local").look_splice(splice)
                found[counts.label(call.service, "", "local")] += 1
            yield
        for key in [*counts.streams]:
            readings.add(catalog.STREAMS_OPEN, found[key], *key)
            yield

    def _known(self, service: str, peer: str, direction: str) -> tuple[str, str, str]:
        """Peers may call whatever they like: what is not offered here has no name of its own."""
        if direction == "inbound" and service not in self._config().services:
            service = OTHER if (service, peer, direction) not in self._counts.streams else service
        return service, peer, direction

    def _streams(self, readings: Readings) -> Iterator[None]:
        add = readings.add
        for service, called in list(self._counts.called.all.items()):
            add(catalog.STREAMS_OPENED, called.opened, service, "outbound")
            readings.distribution(catalog.STREAM_WAIT, called.wait, service)
            readings.distribution(catalog.STREAM_OPEN, called.open, service)
            readings.distribution(catalog.STREAM_FIRST_BYTE, called.first_byte, service)
            yield
        for service, delivered in list(self._counts.delivered.all.items()):
            add(catalog.STREAMS_OPENED, delivered.opened, service, "inbound")
            readings.distribution(catalog.SERVICE_CONNECT, delivered.connect, service)
            yield
        for key, count in list(self._counts.streams.items()):
            add(catalog.STREAM_SENT, count.sent, *key)
            add(catalog.STREAM_RECEIVED, count.received, *key)
            for reason, ended in enumerate(count.ended):
                if ended:
                    add(catalog.STREAMS_ENDED, ended, *key, LABELS[CloseReason(reason)])
            for reason, retries in count.retries.items():
                add(catalog.STREAM_RETRIES, retries, *key[:2], LABELS[reason])
            for cause in catalog.CLOSED["cause"]:
                if key[2] != "local" or cause == "reader":  # within a host nothing else holds a stream back
                    add(catalog.STREAM_STALLED, getattr(count, cause), *key, cause)
            yield

    # Links

    def _links(self, readings: Readings) -> Iterator[None]:
        pools: dict[str, list[Pool]] = {}
        for pool in self._pools.everywhere:
            pools.setdefault(self._peers.of.label(pool.name), []).append(pool)
        for peer, count in list(self._peers.of.all.items()):
            add = readings.add
            add(catalog.LINK_SENT, count.sent, peer)
            add(catalog.LINK_RECEIVED, count.received, peer)
            add(catalog.LINK_RESENT, count.resent, peer)
            add(catalog.LINK_SENDS, count.sends, peer)
            add(catalog.LINK_FRAMES, count.frames, peer)
            add(catalog.LINK_RETRANSMITS, count.retransmits, peer)
            add(catalog.SESSIONS_RESUMED, count.resumed, peer)
            add(catalog.HANDSHAKES_AVOIDED, count.avoided, peer)
            for reason, ended in count.ended.items():
                add(catalog.LINKS_ENDED, ended, peer, LABELS[reason])
            for (direction, outcome), shaken in count.handshakes.items():
                add(catalog.HANDSHAKES, shaken, peer, direction, outcome)
            if count.handshake_seconds.count:
                readings.distribution(catalog.HANDSHAKE, count.handshake_seconds, peer)
            # What sessions that are over have done, and what the others have done so far, in one step: a session that
            # ended in between would be counted twice, or not at all.
            for pool in pools.get(peer, ()):
                self._pool(readings, pool, peer)
            yield
        if self._peers.strangers:
            readings.add(catalog.HANDSHAKES, self._peers.strangers, "", "inbound", "failed")

    def _pool(self, readings: Readings, pool: Pool, peer: str) -> None:
        add = readings.add
        add(catalog.LINKS, len(pool.links), peer)
        add(catalog.PEER_UP, int(pool.up), peer)
        add(catalog.STREAMS_WAITING, pool.waiting, peer)
        suspended = 0
        for session in pool.sessions:
            out = session.out
            add(catalog.LINK_SENT, out.sent + out.resent, peer)
            add(catalog.LINK_RECEIVED, session.received, peer)
            add(catalog.LINK_RESENT, out.resent, peer)
            add(catalog.LINK_SENDS, out.sends, peer)
            add(catalog.LINK_FRAMES, out.frames, peer)
            add(catalog.LINK_UNACKED, out.unacked, peer)
            suspended += session.suspended
            link = pool.sessions.link(session)
            add(catalog.LINK_RETRANSMITS, link.retransmits, peer)
            if not session.suspended:
                add(catalog.LINK_QUEUED, link.queueing, peer)
                if link.rtt is not None:
                    add(catalog.LINK_RTT, link.rtt, peer)
        add(catalog.LINKS_SUSPENDED, suspended, peer)
        ttl, _ = pool.usage.told(trio.current_time())
        if ttl is not None:
            add(catalog.LINK_TTL, ttl, peer)

    # Routing

    def _routes(self, readings: Readings) -> Iterator[None]:
        now = monotonic()
        for service, upstream in list(self._config().upstreams.items()):
            name = self._upstreams.label(service)
            states = self._hosts(service, now)
            for state in catalog.CLOSED["state"]:
                readings.add(catalog.UPSTREAM_HOSTS, states[state], name, state)
            opened = self._outbound.sockets.opened.get(upstream.listen)
            if opened is not None and (waiting := opened.queue(self._queues)) is not None:
                readings.add(catalog.UPSTREAM_BACKLOG, waiting, name)
            yield

    def _hosts(self, service: str, now: float) -> Counter[str]:
        context, states = self._context, Counter[str]()
        route = context.table.find(service)
        ejected = context.ejections.ejected(service, now)
        if route.local:
            states["ejected" if context.host in ejected else "usable"] += 1
        for peer in route.peers:
            pool = self._pools.get(peer)
            if pool is None:
                continue
            if peer in ejected:
                states["ejected"] += 1
            else:
                states["unreachable" if state_of(pool) in ("down", "dialling") else "usable"] += 1
        return states
