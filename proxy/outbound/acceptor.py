"""Takes the calls of one upstream.

The usual call goes to the only peer that offers the service, over a link that is up. Its lane holds all that is to be
known about it, so no `Call` is made (which would cost 100 bytecodes more, where the whole connection costs this host
1,250). Every other call, and every call that the peer refuses, becomes a `Call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.api.messages import StreamDirection
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import UpstreamConfig
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open, encode_open
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket, peer_uid

if TYPE_CHECKING:
    from proxy.pool.pool import Pool

MOST_KEPT = 1024
"""User ids for which the encoded OPEN payload is kept. When there would be more, all are dropped."""


class UpstreamAcceptor:
    """Opens a stream, or makes a `Call`, for each connection to one upstream. It is the observer
    (``pump.streamobserver.StreamObserver``) of the lanes for which no `Call` was made.

    Args:
        service: the service that the upstream is for.
        pool: the pool of the only peer that offers the service; None if this host or several peers do, or nobody does.
    """

    direction: StreamDirection = "outbound"

    def __init__(self, context: CallContext[Call], service: str, upstream: UpstreamConfig, pool: Pool | None) -> None:
        self.service = service
        self._context, self._stats, self._pool = context, context.stats, pool
        self._tcp = isinstance(upstream.listen, TcpAddress)
        self._caller = upstream.caller or ""
        self._calls: dict[int, bytes] = {}

    def accepted(self, sock: LocalSocket) -> None:
        """Take over a caller's connected socket, which the lane or the `Call` closes."""
        service, tcp, pool = self.service, self._tcp, self._pool
        self._stats.opened += 1
        uid = UNKNOWN_UID if tcp else peer_uid(sock)
        if pool is not None and (link := pool.pick(service)) is not None:
            # inlined: Call._open
            lane = link.session.open(self._calls.get(uid) or self._written(uid))
            lane.observer = self
            lane.attach(sock, tcp)
            lane.start_calling()
        else:
            Call(self._context, Open(service, uid, self._caller), sock, tcp).start()

    def _written(self, uid: int) -> bytes:
        if len(self._calls) >= MOST_KEPT:
            self._calls.clear()
        call = self._calls[uid] = encode_open(Open(self.service, uid, self._caller))
        return call

    def lane_opened(self, lane: Lane) -> None:
        """The peer has delivered the stream: hold earlier failures against it no more (StreamObserver)."""
        if self.service in self._context.ejections.hosts:
            self._context.ejections.succeeded(self.service, lane.session.peer)

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """The peer could not deliver: make a `Call` of it, which tries other peers (StreamObserver)."""
        uid = UNKNOWN_UID if self._tcp or lane.sock is None else peer_uid(lane.sock)
        request = Open(self.service, uid, self._caller)
        Call(self._context, request, None, self._tcp, lane).lane_refused(lane, reason)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        if lane.early is not None:  # neither OPENED nor REFUSE has come
            self._context.failed(self.service, lane.session.peer, reason)
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
