"""Takes the calls of one upstream.

The usual call goes to the only peer that offers the service, over a link that is up. Its lane holds all that is to be
known about it, and `KnownCaller` what all calls of a user have in common, so no `Call` is made. Every other call, and
every call that the peer refuses, becomes a `Call`.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from control.api.messages import StreamDirection
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import UpstreamConfig
from proxy.core.syscalls import peer_of
from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open, Via, encode_open
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.pump import options
from proxy.pump.descriptor import Descriptor, fd_of, socket_of
from proxy.pump.edges import Edge, caller_name
from proxy.pump.knownstream import KnownStream
from proxy.pump.lane import Lane
from proxy.pump.options import OURSELVES, LocalSocket
from proxy.pump.ourselves import via_unix
from proxy.pump.streamcounts import CalledCount, StreamCount
from proxy.pump.streamlog import report_lane
from proxy.pump.streamobserver import StreamObserver

if TYPE_CHECKING:
    from proxy.pool.pool import Pool

MOST_KEPT = 1024
"""User ids that are kept. When there would be more, all are dropped."""


class UpstreamAcceptor:
    """Opens a stream, or makes a `Call`, for each connection to one upstream.

    Where somebody hears of each stream (`Totals.log_of`), each becomes a `Call`, which can tell of it.

    Args:
        service: the service that the upstream is for.
        pool: the pool of the only peer that offers the service; None if this host or several peers do, or nobody does.

    Attributes:
        accept: takes over a caller's connection, as `accepted`.
    """

    def __init__(self, context: CallContext[Call], service: str, upstream: UpstreamConfig, pool: Pool | None) -> None:
        self.service = service
        self._context, self._stats = context, context.stats
        self._picker = pool.picker if pool is not None and context.stats.log_of(service) is None else None
        self._tcp = isinstance(upstream.listen, TcpAddress)
        self._caller = upstream.caller or ""
        self._callers: dict[int, KnownCaller] = {}
        self._last: KnownCaller | None = None  # in most containers all callers are one user
        context.stats.edges.kept_by(self)
        self._window = context.pump.openings.of(service)
        self._held = context.held[service]
        self._own_pid = options.own_pid
        counts = context.stats.counts
        self._sampler = counts.calls
        self._called: CalledCount | None = None
        self.accept = self._accept_tcp if self._tcp else self.accepted

    def accepted(self, owner: LocalSocket | Descriptor) -> None:
        """Take over a caller's connection, which the lane or the `Call` closes."""
        self._count()
        link = None if self._picker is None else self._picker.pick(self.service)
        uid = UNKNOWN_UID if self._tcp else peer_of(fd_of(owner), self._own_pid)
        if link is None or uid == OURSELVES:
            return self._start(socket_of(owner), uid)
        caller = self._last
        if caller is None or caller.uid != uid:
            caller = self._callers.get(uid) or self._know(uid, link.peer)
            self._last = caller
        lane = link.session.open(caller.written)
        caller.edge.opened += 1
        lane.observer = caller
        self._sampler.left -= 1
        if not self._sampler.left:
            self._time(lane)
        lane.batch = self._window.add(lane.session.under_way)
        lane.attach(owner, self._tcp)
        lane.start_calling()

    def _count(self) -> None:
        """Count a call that has come."""
        self._stats.opened += 1
        called = self._called
        if called is None:
            called = self._named()
        called.opened += 1
        self._held.count += 1

    def _accept_tcp(self, owner: LocalSocket | Descriptor) -> None:
        """As `accepted`, for TCP callers: they may be connections of this proxy, or of another one."""
        sock = socket_of(owner)
        via = self._context.way_of(sock)
        if via is None:
            return self.accepted(sock)
        self._count()
        Call(self._context, Open(self.service, UNKNOWN_UID, self._caller, via), sock, True).start()

    def _start(self, sock: LocalSocket, uid: int) -> None:
        """Make a `Call` of a connection that has been counted."""
        via: Via | None = None
        if uid == OURSELVES:
            uid, via = os.geteuid(), via_unix(sock)
        Call(self._context, Open(self.service, uid, self._caller, via), sock, self._tcp).start()

    def _know(self, uid: int, peer: str) -> KnownCaller:
        if len(self._callers) >= MOST_KEPT:
            self._callers.clear()
        caller = KnownCaller(self._context, Open(self.service, uid, self._caller), peer, self._tcp)
        self._callers[uid] = caller
        return caller

    def _time(self, lane: Lane) -> None:
        """It is one of the streams that histograms record. It has not waited."""
        weight, called = self._sampler.picked(monotonic()), self._context.stats.counts.called(self.service)
        called.wait.observe(0.0, weight)
        lane.timing = called.timing(weight, lane.since)

    def _named(self) -> CalledCount:
        """What counts its calls, from the first one on."""
        self._called = found = self._stats.counts.called(self.service)
        return found

    def forget_edges(self) -> None:
        """Find them again (``pump.edges.EdgeHolder``)."""
        self._callers, self._last = {}, None


class KnownCaller(StreamObserver):
    """The observer (``pump.streamobserver.StreamObserver``) of the lanes of one user's calls, at one peer, for which no
    `Call` was made.

    Attributes:
        uid: the user; written: the encoded OPEN payload of its calls.
    """

    direction: StreamDirection = "outbound"

    def __init__(self, context: CallContext[Call], request: Open, peer: str, tcp: bool) -> None:
        self._context, self._stats, self._request, self._tcp = context, context.stats, request, tcp
        self._window = context.pump.openings.of(request.service)
        self._held, self._blamed = context.held[request.service], context.ejections.hosts
        self.service, self.uid = request.service, request.uid
        self.written = encode_open(request)
        self._count: StreamCount | None = None
        self.edge: Edge = context.stats.edges.find("outbound", caller_name(request), request.service, peer)

    def lane_opened(self, lane: Lane) -> None:
        """The peer has delivered the stream: hold earlier failures against it no more (StreamObserver)."""
        opened = lane  # whose type is known
        self._window.answered(lane, opened.left())
        opened.leave_window()
        self.edge.failing_since = None
        if self._blamed and self.service in self._blamed:
            self._context.ejections.succeeded(self.service, lane.session.peer)

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """The peer could not deliver: make a `Call` of it, which tries other peers (StreamObserver)."""
        self._call_of(lane).lane_refused(lane, reason)

    def lane_unheard(self, lane: Lane) -> None:
        """The peer has never heard of it: make a `Call` of it, which goes over to another link (StreamObserver)."""
        self._call_of(lane).lane_unheard(lane)

    def _call_of(self, lane: Lane) -> Call:
        lane.leave_window()
        return Call(self._context, self._request, None, self._tcp, lane, self.edge)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        ended = lane  # whose type is known
        if ended.early is not None:  # neither OPENED nor REFUSE has come
            if reason in OF_APPLICATIONS:
                self._window.adapt(False)
            self._window.over(ended.batch)
            self._context.failed(self.service, lane.session.peer, reason)
        elif self._window.doubted:
            self._window.ended(lane, reason)
        self._held.count -= 1
        if (count := self._count) is None:
            self._count = count = self._stats.counts.stream(self.service, lane.session.peer, self.direction)
        count.end(lane, reason)
        self.edge.over(reason, ended.counted_sent, ended.counted_received)
        if (told := self._stats.log_of(self.service)) is not None:
            told.ended(KnownStream(lane, self.direction, self._request), reason, "")
        if self._stats.end(reason):
            report_lane(lane, reason, self.service, "outbound")
