"""One call by a local container, from accept to the end.

This host comes first if it offers the service, then peers, as `routing.balance` chooses. The call goes on to the next
host only while no byte can have reached an application: the host refused it, could not connect to the service, or had
no link yet. The lane keeps a copy of the bytes sent so far, which are sent again to the next peer; after
`balance.TRIES` refusals by peers the call fails.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from control.api.messages import StreamDirection
from control.base.reading.addresses import TcpAddress
from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open, encode_open
from proxy.outbound.calls import CallContext
from proxy.pump.edges import Edge, caller_name
from proxy.pump.lane import Lane
from proxy.pump.options import LocalSocket, peer_process
from proxy.pump.ourselves import MAX_HOPS, Source, said
from proxy.pump.proxyheader import header
from proxy.pump.splice import Splice
from proxy.pump.streamlog import NEVER, StreamFacts, StreamLog, report, stalled, stream_id
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.streamtiming import FirstByteTiming
from proxy.routing.allow import describe
from proxy.routing.balance import TRIES

if TYPE_CHECKING:
    from proxy.pool.pool import Pool
    from proxy.pump.connecting import ConnectAttempt
    from proxy.pump.deadlines import Deadline
    from proxy.pump.link import Link


class Call(StreamObserver):
    """A call, which is the observer of its lane. Owns `sock` until a lane or a splice takes it over.

    Args:
        sock: the caller's socket; None if `lane` is given.
        lane: the lane of a call that the peer has just refused, or never heard of: `lane_refused` or `lane_unheard`
            follows, and takes the socket from it.
        edge: where that lane is counted.

    Attributes:
        edge: where the call is counted now; None: no host has been tried yet.
        lane, splice: what moves the call's bytes now, or did last; None: nothing yet.
    """

    __slots__ = (
        "_attempt",
        "_context",
        "_deadline",
        "_detail",
        "_early",
        "_eof",
        "_first_byte",
        "_offered_at",
        "_opened_at",
        "_process",
        "_refusal",
        "_refused",
        "_request",
        "_sock",
        "_source",
        "_tcp",
        "_tries",
        "_untried",
        "_weight",
        "_window",
        "edge",
        "lane",
        "service",
        "since",
        "splice",
    )
    direction: StreamDirection = "outbound"

    def __init__(
        self,
        context: CallContext[Call],
        request: Open,
        sock: LocalSocket | None,
        tcp: bool,
        lane: Lane | None = None,
        edge: Edge | None = None,
    ) -> None:
        self._context = context
        self._sock = sock
        self._untried: list[Pool] = []
        self._attempt: ConnectAttempt | None = None
        self._source: Source | None = None
        self._deadline: Deadline | None = None
        self._refusal = CloseReason.PEER_UNREACHABLE
        self._detail = ""
        self._early, self._eof = b"", False
        self._refused: tuple[str, ...] = ()
        self.service = request.service
        self._request = request
        self._tcp = tcp
        self._window = context.pump.openings.of(request.service)
        self.since = monotonic() if lane is None else lane.since
        self.lane, self.edge = lane, edge
        self.splice: Splice | None = None
        self._weight = 0
        if lane is None and (sampler := context.stats.counts.calls).left == 1:
            self._weight = sampler.picked(self.since)
        elif lane is None:
            sampler.left -= 1
        self._process = self.caller if self._told is not None else None
        self._tries = 0 if lane is None else 1
        self._offered_at = self._opened_at = 0.0
        self._first_byte: FirstByteTiming | None = None

    def start(self) -> None:
        """Begin with this host if it offers the service, else with a peer. Fail if the call goes round in a circle."""
        hops = 0 if self._request.via is None else self._request.via.hops
        if hops > MAX_HOPS:
            self._detail = said(hops)
            return self._fail(CloseReason.LOOP)
        local, pools = self._context.endpoints(self.service)
        self._untried = pools[:]
        if local is not None and not self._context.allowed.allows(self._request, self._context.host):
            self._refusal, self._detail = CloseReason.NOT_ALLOWED, describe(self._request)
            refused, host = self._context.stats.refused, self._context.host
            refused.add(self._request, host, self._refusal, self._detail, monotonic())
            local = None
        if local is None:
            return self._try_peers()
        self._offer("local", None)
        connected = partial(self._local_connected, local.proxy_protocol == "v2")
        self._context.calls[self] = None
        attempt = self._context.connector.connect(local.deliver, local.connect_timeout, connected, hops, local.source)
        if self._sock is not None and self.lane is None:
            self._attempt = attempt

    @property
    def caller_socket(self) -> LocalSocket | None:
        """The caller's socket, whoever has it now; None if it is closed."""
        if self._sock is not None:
            carrier: LocalSocket | None = self._sock
        else:
            carrier = self.splice.caller.sock if self.splice is not None else self.lane.sock if self.lane else None
        return None if carrier is None or carrier.fileno() < 0 else carrier

    @property
    def caller(self) -> tuple[int, int] | None:
        """User id and process id of the caller; None if its socket is closed or is no Unix socket."""
        carrier = self.caller_socket
        return None if carrier is None else peer_process(carrier)

    # This host

    def _local_connected(self, tell: bool, service: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        if self._attempt is not None:
            self._source = self._attempt.source
        self._attempt = None
        self._context.calls.pop(self, None)
        if service is not None and self._sock is not None:
            if self._context.ejections.held:
                self._context.ejections.succeeded(self.service, self._context.host)
            caller, self._sock = self._sock, None
            self.splice = Splice(self._context.pump, caller, service, self._splice_ended)
            self._told_opened()
            self._time_here(self.splice)
            self._context.splices[self.splice] = self
            self._context.held[self.service].count += 1
            self.splice.start()
            if tell:
                self._introduce(self.splice)
            self._delivered_here(self.splice)
        else:
            if service is None:
                self._context.failed(self.service, self._context.host, reason)
            self._not_taken(reason)
            self._refusal, self._detail = reason, detail
            self._look_again()
            self._try_peers()

    def _time_here(self, splice: Splice) -> None:
        """As `_time`, of a call that a service of this host has taken."""
        if self._weight:
            count = self._context.stats.counts.called(self.service)
            count.wait.observe(self._offered_at - self.since, self._weight)
            splice.service.timing = timing = count.timing(self._weight, self.since)
            timing.opened(self._opened_at - self._offered_at)

    def _delivered_here(self, splice: Splice) -> None:
        """The service of this host has the call; the splice may be over already."""

    def _introduce(self, splice: Splice) -> None:
        """Send the PROXY header to the service. It comes first, as nothing has been read from the caller yet."""
        caller, own = splice.caller.sock, self._context.own_address
        try:
            if self._tcp:
                source, destination = _hostport(caller.getpeername()), _hostport(caller.getsockname())
            else:
                source, destination = TcpAddress(own.host, 0).hostport, own.hostport
            splice.service.write(memoryview(header(self._request, self._context.host, source, destination)))
        except OSError:  # the caller or the service has closed already
            return splice.end(CloseReason.ABORTED)
        splice.settle()

    def _splice_ended(self, reason: CloseReason) -> None:
        splice = self.splice
        assert splice is not None
        del self._context.splices[splice]
        self._context.stats.counts.stream(self.service, "", "local").end_splice(splice, reason)
        self._context.held[self.service].count -= 1  # the service's
        self._context.connector.own.drop(self._source)
        self._window.adapt(not splice.caller.hasty)
        self._over(reason, splice.caller.received, splice.service.received, None)

    # Peers

    def _look_again(self) -> None:
        """Find again which peers are left to try, as the configuration may have changed since the call began."""
        if (pools := self._context.peers(self.service)) is None:  # the upstream was removed
            self._untried = [pool for pool in self._untried if self._context.has(pool)]
        else:
            self._untried = [pool for pool in pools if pool.name not in self._refused]

    def _try_peers(self) -> None:
        """Open a stream at a peer that has a link. If none has one, wait for it until open_timeout. Without peers left
        to try, or without room in their waiting lists, fail.
        """
        untried = self._untried
        if not untried:
            return self._fail(self._refusal)
        pool = untried[0] if len(untried) == 1 else self._context.choose(self.service, untried)
        if pool is not None and (link := pool.pick(self.service)) is not None:
            untried.remove(pool)
            return self._open(link)
        if not self._wait_for_link():
            return self._fail(CloseReason.OVERLOADED)
        if self._deadline is None:
            self._deadline = self._context.deadlines.add(self._context.limits.open_timeout, self._expire)
            self._context.calls[self] = None

    def _wait_for_link(self) -> bool:
        """Join the pools' waiting lists; the first that has a link gets the call. False: all lists are full."""
        return sum(pool.wait(self) for pool in self._context.waits(self.service, self._untried)) > 0

    def _open(self, link: Link) -> None:
        self._cancel_deadline()
        sock, self._sock = self._sock, None
        assert sock is not None
        again = self.lane is not None
        request, early = self._request, self._early
        if not link.session.remote.via:
            request = request._replace(via=None)
        self._offer("outbound", link.session.peer)
        before, self.lane = self.lane, link.session.open(encode_open(request))
        lane = self.lane
        lane.observer = self
        self._time(lane, before)
        if self._told is not None:
            lane.timing = self._first_byte = FirstByteTiming(lane.timing)
        lane.batch = self._window.add(lane.session.under_way)
        lane.attach(sock, self._tcp, again)
        if again or early:
            self._early = b""
            lane.call_again(early, self._eof)
        else:
            lane.start_calling()

    def _time(self, lane: Lane, before: Lane | None) -> None:
        """If it is one of the calls that histograms record: it has waited until now, and the rest is still to come."""
        if before is not None:
            lane.timing = before.timing
        elif self._weight:
            count = self._context.stats.counts.called(self.service)
            count.wait.observe(lane.since - self.since, self._weight)
            lane.timing = count.timing(self._weight, self.since)

    def link_up(self) -> None:
        """A peer that offers the service has a link now (Waiter). If other calls have taken all its streams, this one
        goes on waiting; its deadline stays.
        """
        for pool in self._untried:
            pool.leave(self)
        self._try_peers()

    def rerouted(self, here: bool) -> None:
        """The hosts that offer the service have changed. A call that waits for a link goes on with the new ones; its
        deadline stays.

        Args:
            here: this host has come to offer the service, or offers it in another way than before.
        """
        if self._deadline is None:
            return
        if here and self.lane is None:  # not a refused call: a splice could not send its early bytes again
            self._stop_waiting()
            return self.start()
        for pool in self._untried:
            pool.leave(self)
        self._untried = self._context.endpoints(self.service)[1][:]
        if not self._untried or self._context.choose(self.service, self._untried) is not None:
            self.link_up()
        elif not self._wait_for_link():
            self._stop_waiting()
            self._fail(CloseReason.OVERLOADED)

    def orphaned(self) -> None:
        """The upstream was removed. A call that waits for a link goes on waiting for those of its peers that are still
        configured. Without one it ends: a removed peer that has no streams is not dialled any more.
        """
        if self._deadline is None:
            return
        for pool in self._untried:
            if not self._context.has(pool):
                pool.leave(self)
        self._look_again()
        if not self._untried:
            self._cancel_deadline()
            self._detail = "upstream and peer were removed from the configuration"
            self._fail(CloseReason.PEER_UNREACHABLE)

    def ready(self, mask: int) -> None:
        """The caller hung up while its refused call waits for another peer. The call goes on, as the bytes that it sent
        may still be delivered (Watcher).
        """

    def crashed(self) -> None:
        """Never called: `ready` does nothing (Watcher)."""

    def abandoned(self) -> None:
        """Never called: `Outbound.close` has ended the call before the pump ends (Watcher)."""

    def _expire(self) -> None:
        self._deadline = None
        self._context.calls.pop(self, None)
        seconds, reason = f"{self._context.limits.open_timeout:g} s", CloseReason.PEER_UNREACHABLE
        self._detail = f"no link within {seconds}"
        for pool in self._untried:
            if pool.leave(self):
                if pool.paces:
                    reason = CloseReason.OVERLOADED
                    self._detail = f"{pool.name} takes {pool.opens_per_second} streams a second: no turn in {seconds}"
                else:
                    self._context.failed(self.service, pool.name, CloseReason.PEER_UNREACHABLE)
        self._fail(reason)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._context.calls.pop(self, None)

    def _stop_waiting(self) -> None:
        self._cancel_deadline()
        for pool in self._untried:
            pool.leave(self)

    # How it goes on, and ends

    def lane_opened(self, lane: Lane) -> None:
        """The peer has delivered the stream (StreamObserver)."""
        self._untried = []
        self._window.answered(lane, lane.left())
        lane.leave_window()
        self._told_opened()
        if self._context.ejections.held:
            self._context.ejections.succeeded(self.service, lane.session.peer)

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        """The peer could not deliver: take the socket back from the lane and try the next peer (StreamObserver)."""
        self._refusal, self._detail = reason, f"by {lane.session.peer}"
        self._context.failed(self.service, lane.session.peer, reason)
        self._not_taken(reason)
        self._refused += (lane.session.peer,)
        self._context.stats.counts.stream(self.service, lane.session.peer, self.direction).retried(reason)
        if len(self._refused) >= TRIES:
            self._untried = []
        else:
            self._look_again()
        self._take_over(lane)

    def lane_unheard(self, lane: Lane) -> None:
        """The session was one that the peer did not know: go on over another one, of the same peer too
        (StreamObserver).
        """
        self._tries -= 1
        if self.edge is not None:
            self.edge.opened -= 1
            self.edge = None
        self._look_again()
        self._take_over(lane)

    def _take_over(self, lane: Lane) -> None:
        """Take the socket back from a lane, with what was sent, and try a peer."""
        lane.leave_window()
        self._early, self._eof = bytes(lane.early or b""), lane.eof
        self._sock = lane.surrender(self)
        self._try_peers()

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        """Count the end, and log it if it is to be logged (StreamObserver)."""
        if lane.early is not None:  # neither OPENED nor REFUSE has come
            if reason in OF_APPLICATIONS:
                self._window.adapt(False)
            self._window.over(lane.batch)
            self._context.failed(self.service, lane.session.peer, reason)
        elif self._window.doubted:
            self._window.ended(lane, reason)
        self._context.stats.counts.stream(self.service, lane.session.peer, self.direction).end(lane, reason)
        self._over(reason, lane.bytes_sent, lane.bytes_received, lane.session.peer)

    def give_up(self, reason: CloseReason) -> None:
        """End the call with the reason if neither a lane nor a splice has its socket."""
        self._stop_waiting()
        if self._attempt is not None:
            self._attempt.cancel()
            self._context.calls.pop(self, None)
        if self._sock is not None:
            self._fail(reason)

    def _fail(self, reason: CloseReason) -> None:
        """No host takes the call: close the caller's socket, as a reset where its kind can express one."""
        self._cancel_deadline()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._turn_away(sock, reason)
        self._context.stats.counts.stream(self.service, "", self.direction).ended[reason] += 1
        if not self._tries:
            self._count("outbound", None)
        self._over(reason, 0, 0, None)

    def _turn_away(self, sock: LocalSocket, reason: CloseReason) -> None:
        """Close the socket of a caller whose call no host takes. If `lane` is not None it is registered in the pump."""
        self._context.pump.close(sock)

    def _over(self, reason: CloseReason, sent: int, received: int, peer: str | None) -> None:
        """The call has ended: count it, and log it if it is to be logged."""
        self._context.held[self.service].count -= 1
        self._ended(reason, sent, received, peer)

    def _ended(self, reason: CloseReason, sent: int, received: int, peer: str | None) -> None:
        if self.edge is not None:
            self.edge.over(reason, sent, received)
        if (told := self._told) is not None:
            told.ended(self, reason, self._detail)
        if self._context.stats.end(reason):
            report(
                reason,
                since=self.since,
                service=self.service,
                direction="outbound",
                peer=peer,
                detail=self._detail,
                sent=sent,
                received=received,
            )

    # What is counted, and told those who hear of single streams

    @property
    def _told(self) -> StreamLog | None:
        return self._context.stats.log_of(self.service)

    def _offer(self, direction: StreamDirection, peer: str | None) -> None:
        self._tries += 1
        self._offered_at = monotonic()
        self._count(direction, peer)

    def _count(self, direction: StreamDirection, peer: str | None) -> None:
        self.edge = edge = self._context.stats.edges.find(direction, caller_name(self._request), self.service, peer)
        edge.opened += 1

    def _not_taken(self, reason: CloseReason) -> None:
        """A host did not take the call, which may go on to others."""
        if self.edge is not None:
            self.edge.over(reason, 0, 0)
            self.edge = None

    def _told_opened(self) -> None:
        self._opened_at = monotonic()
        if self.edge is not None:
            self.edge.failing_since = None
        if (told := self._told) is not None:
            told.opened(self)

    @property
    def stream_id(self) -> str | None:
        """As the host that it went to has it, too (LoggedStream)."""
        return None if self.lane is None else stream_id(self.lane)

    def facts(self) -> StreamFacts:
        """What is known of the call now (LoggedStream)."""
        lane, splice, request = self.lane, self.splice, self._request
        sent, received = (0, 0) if lane is None else (lane.bytes_sent, lane.bytes_received)
        first_at = None if self._first_byte is None else self._first_byte.at
        held_back = NEVER if lane is None else stalled(lane.stalls, monotonic())
        if splice is not None:
            held_back = splice.stalled(monotonic())
            sent, received, first_at = splice.caller.received, splice.service.received, splice.service.first_at
        return StreamFacts(
            service=self.service,
            direction="outbound" if splice is None else "local",
            caller=request.caller,
            uid=None if request.uid == UNKNOWN_UID else request.uid,
            pid=None if self._process is None else self._process[1] or None,
            peer=None if lane is None else lane.session.peer,
            link=None if lane is None else lane.session.name,
            tries=self._tries,
            age=monotonic() - self.since,
            wait=self._offered_at - self.since if self._offered_at else None,
            open=self._opened_at - self._offered_at if self._opened_at else None,
            first_byte=None if first_at is None else first_at - self.since,
            stalled=held_back,
            sent=sent,
            received=received,
        )


def _hostport(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    return TcpAddress(*address[:2]).hostport
