"""Takes the calls of one upstream.

The usual call goes to the only peer that offers the service, over a link that is up. Its lane holds all that is to be
known about it, so no `Call` is made (which would cost 100 bytecodes more, where the whole connection costs this host
1,250). Every other call, and every call that the peer refuses, becomes a `Call`.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from control.api.messages import StreamDirection
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import UpstreamConfig
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open, Via, encode_open
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.pump.lane import OF_APPLICATIONS, Lane
from proxy.pump.options import OURSELVES, LocalSocket, peer_uid
from proxy.pump.ourselves import via_unix
from proxy.pump.streamcounts import CalledCount, StreamCount

if TYPE_CHECKING:
    from proxy.pool.pool import Pool

MOST_KEPT = 1024
"""User ids for which the encoded OPEN payload is kept. When there would be more, all are dropped."""


class FromOurselves(Exception):
    """The caller is this process: a service is delivered to an upstream."""


class UpstreamAcceptor:
    """Opens a stream, or makes a `Call`, for each connection to one upstream. It is the observer
    (``pump.streamobserver.StreamObserver``) of the lanes for which no `Call` was made.

    With an access log each becomes a `Call`, which can tell of it.

    Args:
        service: the service that the upstream is for.
        pool: the pool of the only peer that offers the service; None if this host or several peers do, or nobody does.

    Attributes:
        accept: takes over a caller's connected socket, which the lane or the `Call` closes.
    """

    direction: StreamDirection = "outbound"

    def __init__(self, context: CallContext[Call], service: str, upstream: UpstreamConfig, pool: Pool | None) -> None:
        self.service = service
        self._context, self._stats = context, context.stats
        self._pool = pool if context.stats.access is None else None
        self._tcp = isinstance(upstream.listen, TcpAddress)
        self._caller = upstream.caller or ""
        self._calls: dict[int, bytes] = {}
        self._window = context.pump.openings.of(service)
        counts = context.stats.counts
        self._sampler = counts.calls
        self._called: CalledCount | None = None
        self._stream_count: StreamCount | None = None
        self.accept = self._accept_tcp if self._tcp else self.accepted

    def accepted(self, sock: LocalSocket) -> None:
        """Take over a caller's connected socket, which the lane or the `Call` closes."""
        service, tcp, pool = self.service, self._tcp, self._pool
        self._stats.opened += 1
        (self._called or self._named()).opened += 1
        self._context.held[service] += 1
        uid = UNKNOWN_UID if tcp else peer_uid(sock)
        if pool is not None and (link := pool.pick(service)) is not None:
            # inlined: Call._open
            try:
                lane = link.session.open(self._calls.get(uid) or self._written(uid))
            except FromOurselves:
                return self._start(sock, uid)
            lane.observer = self
            self._sampler.left -= 1
            if not self._sampler.left:
                self._time(lane)
            self._window.add(lane)
            lane.attach(sock, tcp)
            lane.start_calling()
        else:
            self._start(sock, uid)

    def _accept_tcp(self, sock: LocalSocket) -> None:
        """As `accepted`, for TCP callers: they may be connections of this proxy, or of another one."""
        via = self._context.way_of(sock)
        if via is None:
            return self.accepted(sock)
        self._stats.opened += 1
        (self._called or self._named()).opened += 1
        self._context.held[self.service] += 1
        Call(self._context, Open(self.service, UNKNOWN_UID, self._caller, via), sock, True).start()

    def _start(self, sock: LocalSocket, uid: int) -> None:
        """Make a `Call` of a connection that has been counted."""
        via: Via | None = None
        if uid == OURSELVES:
            uid, via = os.geteuid(), via_unix(sock)
        Call(self._context, Open(self.service, uid, self._caller, via), sock, self._tcp).start()

    def _written(self, uid: int) -> bytes:
        if uid == OURSELVES:
            raise FromOurselves
        if len(self._calls) >= MOST_KEPT:
            self._calls.clear()
        call = self._calls[uid] = encode_open(Open(self.service, uid, self._caller))
        return call

    def _time(self, lane: Lane) -> None:
        """It is one of the streams that histograms record. It has not waited."""
        weight, called = self._sampler.picked(monotonic()), self._called or self._named()
        called.wait.observe(0.0, weight)
        lane.timing = called.timing(weight, lane.since)

    def _named(self) -> CalledCount:
        """What counts its calls, from the first one on."""
        self._called = found = self._stats.counts.called(self.service)
        return found

    def lane_opened(self, lane: Lane) -> None:
        """The peer has delivered the stream: hold earlier failures against it no more (StreamObserver)."""
        self._window.answered(lane)
        if self.service in self._context.ejections.hosts:
            self._context.ejections.succeeded(self.service, lane.session.peer)

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """The peer could not deliver: make a `Call` of it, which tries other peers (StreamObserver)."""
        self._call_of(lane).lane_refused(lane, reason)

    def lane_unheard(self, lane: Lane) -> None:
        """The peer has never heard of it: make a `Call` of it, which goes over to another link (StreamObserver)."""
        self._call_of(lane).lane_unheard(lane)

    def _call_of(self, lane: Lane) -> Call:
        self._window.drop(lane)
        uid = UNKNOWN_UID if self._tcp or lane.sock is None else peer_uid(lane.sock)
        return Call(self._context, Open(self.service, uid, self._caller), None, self._tcp, lane)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        if lane.early is not None:  # neither OPENED nor REFUSE has come
            if reason in OF_APPLICATIONS:
                self._window.adapt(False)
            self._window.over(lane)
            self._context.failed(self.service, lane.session.peer, reason)
        elif self._window.doubted:
            self._window.ended(lane, reason)
        self._context.held[self.service] -= 1
        if (count := self._stream_count) is None:
            counts = self._stats.counts
            self._stream_count = count = counts.stream(self.service, lane.session.peer, self.direction)
        count.end(lane, reason)
        if reason in self._stats.unlogged:
            # inlined: StreamStats.end
            self._stats.ended += 1
        elif self._stats.end(reason):
            self._stats.report(
                reason,
                since=lane.since,
                service=self.service,
                direction="outbound",
                peer=lane.session.peer,
                detail="",
                sent=lane.bytes_sent,
                received=lane.bytes_received,
            )
