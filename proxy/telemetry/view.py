"""What the proxy tells about itself (``telemetry.admin.AdminView``), read from its parts when somebody asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import trio

from control.api.messages import (
    ConnectStatus,
    Discovery,
    Edges,
    Ejection,
    LinkInfo,
    MeshHost,
    PeerState,
    PeerStatus,
    ServiceRoute,
    ServiceStatus,
    Status,
    StreamInfo,
    UpstreamStatus,
)
from control.base.reading.addresses import Address
from control.base.version import VERSION
from proxy.config.schema import Config, ConnectConfig
from proxy.core.finder import core
from proxy.inbound.inbound import Inbound
from proxy.mux.stream import StreamState
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.upstreams import Outbound
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pool.record import Recorder
from proxy.pool.suspendedbytes import kept_by
from proxy.pump.budget import MemoryBudget
from proxy.pump.lane import Lane
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, peer_process
from proxy.pump.session import LaneSession
from proxy.pump.streamlog import stream_id
from proxy.pump.streamstats import StreamStats
from proxy.telemetry import meshview
from proxy.telemetry.accesslog import AccessLog
from proxy.telemetry.busiest import busiest
from proxy.telemetry.doorview import DoorState, door_status
from proxy.telemetry.edgeview import EdgeView

if TYPE_CHECKING:
    from proxy.mesh.follower import MapFollower


class ProxyCounts(NamedTuple):
    """See `ProxyView.counts`."""

    host: str
    uptime_s: float
    streams: int
    opened: int
    failed: int
    memory_used: int
    memory_limit: int
    handshakes_avoided: int
    draining: bool
    missing: list[str]
    control: Discovery | None


class ProxyView:
    """See the module's text. Reads only; holds nothing of its own but the time of its making.

    Attributes:
        config: the one that the proxy runs with, which its owner keeps up to date.
        drain_left: seconds that a drain has left; None: there is none.
        follower: None without a control plane. renewal_error: why the certificate is not renewed.
        recorder: None without pool.record.
        config_stale: why changes of the configuration file cannot be seen; empty: they can.
        namesakes: what peers say of other proxies that bear this host's name.
        connections: counts those from the CONNECT socket.
        held_back: why callers at an upstream's address wait longer than others; empty: they do not.
        missing: what is said of sockets whose files are gone; failing: of those where nothing can be accepted for now.
        unreachable: why peers cannot reach this host; empty: they can.
        door: tells of the door, and where calls from containers are accepted; None: without a door.
    """

    def __init__(
        self, config: Config, pump: Pump, pools: Pools, inbound: Inbound, context: CallContext[Call], stats: StreamStats
    ) -> None:
        self.config, self._pump, self._pools = config, pump, pools
        self._inbound, self._context, self._stats = inbound, context, stats
        self.follower: MapFollower | None = None
        self.access: AccessLog | None = None
        self.recorder: Recorder | None = None
        self.config_stale: Callable[[], str] = lambda: ""
        self.renewal_error: Callable[[], str | None] = lambda: None
        self._edges = EdgeView(config.host, stats.edges, self._lanes, lambda: context.splices.values())
        self._since = monotonic()
        self.drain_left: Callable[[], float | None] = lambda: None
        self.namesakes: Callable[[], list[str]] = list
        self.missing: Callable[[], list[str]] = list
        self.failing: Callable[[], list[str]] = list
        self.connections: Callable[[], int] = lambda: 0
        self.held_back: Callable[[Address], str] = lambda listen: ""
        self.unreachable: Callable[[], str] = lambda: ""
        self.door: tuple[Callable[[], DoorState], Outbound] | None = None

    def status(self) -> Status:
        """``GET /status``."""
        config, sessions, callers = self.config, self._sessions, self._callers()
        return Status(
            host=config.host,
            pid=os.getpid(),
            version=VERSION,
            core=core(),
            uptime_s=monotonic() - self._since,
            security=config.links.security,
            sessions=len(sessions),
            streams=self._stats.open,
            memory_used=self._pump.budget.used + self._pump.slabs.bytes_held,
            memory_limit=self._pump.budget.limit,
            streams_opened=self._stats.opened,
            streams_aborted=self._stats.aborted,
            streams_refused=self._stats.failed,
            draining=self.drain_left() is not None,
            drain_left_s=self.drain_left(),
            refused_by_reason={reason.label: count for reason, count in self._stats.failures.items()},
            handshakes_avoided=sum(pool.usage.avoided for pool in self._pools.everywhere),
            namesakes=self.namesakes(),
            access_lost=0 if self.access is None else self.access.lost,
            missing=[*filter(None, [self.unreachable()]), *self.missing()],
            cannot_accept=self.failing(),
            config_stale=self.config_stale(),
            record_stopped="" if self.recorder is None else self.recorder.stopped,
            control=self._discovery(),
            busiest=busiest(callers),
            busy_poll=self._pump.busy_poll.told,
            busy_poll_s=self._pump.busy_poll.spent,
            peers=self.peers(),
            upstreams=[self._upstream(name) for name in config.upstreams],
            connect=None if config.connect is None else self._connect(config.connect),
            door=None if self.door is None else door_status(self.door[0](), config, self.door[1], callers),
            services=[
                ServiceStatus(
                    name=name,
                    deliver=str(service.deliver),
                    streams=self._inbound.open[name].count + self._spliced(name),
                )
                for name, service in config.services.items()
            ],
        )

    def counts(self) -> ProxyCounts:
        """What `status` has that costs nothing, however many streams there are."""
        door = "" if self.door is None else self.door[0]().problem
        return ProxyCounts(
            host=self.config.host,
            uptime_s=monotonic() - self._since,
            streams=self._stats.open,
            opened=self._stats.opened,
            failed=self._stats.failed,
            memory_used=self._pump.budget.used + self._pump.slabs.bytes_held,
            memory_limit=self._pump.budget.limit,
            handshakes_avoided=sum(pool.usage.avoided for pool in self._pools.everywhere),
            draining=self.drain_left() is not None,
            missing=[*filter(None, [self.unreachable(), door]), *self.missing(), *self.failing(), *self.namesakes()],
            control=self._discovery(),
        )

    def _discovery(self) -> Discovery | None:
        follower = self.follower
        return None if follower is None else meshview.discovery(self.config, follower, self.renewal_error())

    def offered(self) -> dict[str, list[str]]:
        """By upstream, the hosts that offer it."""
        found = {name: self._context.table.find(name) for name in self.config.upstreams}
        return {name: [self.config.host] * route.local + list(route.peers) for name, route in found.items()}

    def peers(self) -> list[PeerStatus]:
        """All peers."""
        return [_peer(pool, self._pump.budget) for pool in self._pools.values()]

    def ejected(self) -> list[Ejection]:
        """The hosts that get no streams of a service for now."""
        now = monotonic()
        return [
            Ejection(service=service, host=host, left_s=round(record.until - now, 1), times=record.times)
            for (service, host), record in self._context.ejections.held.items()
            if record.until > now
        ]

    def _callers(self) -> list[tuple[str, LocalSocket | None]]:
        """The open calls of this host's callers: service and the caller's socket."""
        context = self._context
        lanes = [lane for session in self._sessions for lane in session.streams.values()]
        calls = [*context.splices.values(), *context.calls]
        return [
            *((lane.observer.service, lane.sock) for lane in lanes if lane.observer.direction == "outbound"),
            *((call.service, call.caller_socket) for call in calls),
        ]

    def _spliced(self, service: str) -> int:
        return sum(call.service == service for call in self._context.splices.values())

    def _upstream(self, name: str) -> UpstreamStatus:
        route = self._context.table.find(name)
        offered_by = [self.config.host] * route.local + list(route.peers)
        listen = self.config.upstreams[name].listen
        return UpstreamStatus(service=name, listen=str(listen), offered_by=offered_by, held_back=self.held_back(listen))

    def _connect(self, connect: ConnectConfig) -> ConnectStatus:
        return ConnectStatus(
            listen=str(connect.listen),
            services=None if connect.services == "all" else list(connect.services),
            open=self.connections(),
            held_back=self.held_back(connect.listen),
        )

    def hosts(self) -> list[MeshHost]:
        """``GET /hosts``."""
        return meshview.hosts(self.config, self._pools, self.follower)

    def services(self) -> list[ServiceRoute]:
        """``GET /services``."""
        return meshview.services(
            self.config, self._pools, self._context.ejections, self.follower, self._stats.refused
        )

    def links(self) -> list[LinkInfo]:
        """``GET /links``."""
        return [_link(session, pool) for pool in self._pools.everywhere for session in pool.sessions]

    async def edges(self) -> Edges:
        """``GET /edges``."""
        return await self._edges.read()

    def _lanes(self) -> Iterator[Lane]:
        """The open streams at the first step, unless they have ended by then, session by session."""
        for session in self._sessions:
            yield from list(session.streams.values())

    @property
    def _sessions(self) -> list[LaneSession]:
        return [session for pool in self._pools.everywhere for session in pool.sessions]

    def streams(self) -> Iterator[StreamInfo]:
        """``GET /streams``: those that are open at the first step, each as it is when it is reached, unless it has
        ended by then. So whoever takes them may do other things between two steps.
        """
        context = self._context
        lanes = [lane for session in self._sessions for lane in session.streams.values()]
        calls = [*context.splices.values(), *context.calls]
        yield from filter(None, map(self._lane, lanes))
        yield from filter(None, map(self._call, calls))

    def _lane(self, lane: Lane) -> StreamInfo | None:
        if lane.session.streams.get(lane.id) is lane:
            return _lane(lane)
        # The host may have refused the stream since the list was made, and its call now wait for another one.
        return self._call(lane.observer) if isinstance(lane.observer, Call) else None

    def _call(self, call: Call) -> StreamInfo | None:
        """A call that is spliced within this host, waits, or has a lane, whichever it is by now."""
        if call.splice in self._context.splices:
            return _spliced(call)
        if call in self._context.calls:
            return _waiting(call)
        lane = call.lane
        if lane is None:
            return None
        there = lane.session.streams.get(lane.id) is lane
        return _lane(lane) if there else None


def _peer(pool: Pool, budget: MemoryBudget) -> PeerStatus:
    state: PeerState = "up" if pool.up else "dialling" if pool.dialling else "down"
    ttl, reason = pool.usage.told(trio.current_time())
    suspended, now = pool.sessions.suspended, monotonic()
    patience = pool.sessions.settings.resume_timeout
    return PeerStatus(
        name=pool.name,
        address=pool.peer.address.hostport,
        state=state,
        links=len(pool.links),
        streams=pool.streams,
        suspended=len(suspended),
        suspended_streams=sum(len(session.streams) for session in suspended),
        suspended_bytes=sum(map(kept_by, suspended)),
        suspended_s=max((now - session.lost_at for session in suspended), default=None),
        suspended_left_s=min((max(0.0, each.stalled_since + patience - now) for each in suspended), default=None),
        resumed=pool.sessions.resumed,
        waiting=pool.waiting,
        memory_used=budget.account(pool.name).used,
        last_error=None if pool.up else pool.last_error,  # a peer that has dialled is there, whatever ours met
        retry_in_s=None if pool.retry_at is None else max(0.0, pool.retry_at - trio.current_time()),
        idle=state == "down" and pool.idle,
        warm=pool.usage.warm,
        ahead=pool.usage.ahead,
        handshakes=pool.dials,
        ttl_s=ttl,
        ttl_reason=reason,
        opens_per_second=pool.opens_per_second,
    )


def _link(session: LaneSession, pool: Pool) -> LinkInfo:
    link = pool.sessions.link(session)
    out, opened_in = session.out, session.opened_in
    ttl, reason = pool.usage.told(trio.current_time()) if link.dialled else (None, "")
    return LinkInfo(
        id=link.name,
        peer=link.peer,
        direction="dialled" if link.dialled else "accepted",
        local=link.local_address,
        remote=link.remote_address,
        streams=link.streams,
        age_s=link.age,
        idle_s=monotonic() - link.heard_at,
        rtt_ms=None if link.rtt is None else link.rtt * 1000,
        bytes_sent=out.sent,
        bytes_received=session.received,
        unacked=out.unacked,
        congested=link.congested,
        open_ms=None if opened_in == inf else opened_in * 1000,
        leaving=link.leaving,
        bulk=link.bulk,
        queueing=link.queueing,
        resumed=session.resumed,
        suspended_s=monotonic() - session.lost_at if session.suspended else None,
        silent_s=None if session.suspended else link.silence,
        suspended_why=f"{link.reason.label}: {link.detail}" if session.suspended else "",
        ttl_s=ttl,
        ttl_reason=reason,
        opened_why=pool.why.get(link.name, "") if link.dialled else "",
    )


def _lane(lane: Lane) -> StreamInfo:
    caller = lane.sock if lane.observer.direction == "outbound" else None
    uid, pid = _known(None if caller is None else peer_process(caller))
    return StreamInfo(
        id=f"{lane.session.name}/{lane.id}",
        shared_id=stream_id(lane),
        link=lane.session.name,
        service=lane.observer.service,
        direction=lane.observer.direction,
        peer=lane.session.peer,
        state=StreamState(lane.state).label,
        age_s=monotonic() - lane.since,
        bytes_sent=lane.bytes_sent,
        bytes_received=lane.bytes_received,
        credit=lane.credit,
        buffered=lane.buffered,
        uid=uid,
        pid=pid,
        suspended=lane.session.suspended,
    )


def _known(found: tuple[int, int] | None) -> tuple[int | None, int | None]:
    return (None, None) if found is None else (found[0], found[1] or None)


def _spliced(call: Call) -> StreamInfo:
    splice = call.splice
    assert splice is not None
    uid, pid = _known(call.caller)
    return StreamInfo(
        id=f"local/{id(splice):x}",
        link=None,
        service=call.service,
        direction="local",
        peer=None,
        state="open",
        age_s=monotonic() - call.since,
        bytes_sent=splice.caller.received,
        bytes_received=splice.service.received,
        credit=0,
        buffered=len(splice.caller.pending) + len(splice.service.pending),
        uid=uid,
        pid=pid,
    )


def _waiting(call: Call) -> StreamInfo:
    uid, pid = _known(call.caller)
    return StreamInfo(
        id=f"waiting/{id(call):x}",
        link=None,
        service=call.service,
        direction="outbound",
        peer=None,
        state="waiting",
        age_s=monotonic() - call.since,
        bytes_sent=0,
        bytes_received=0,
        credit=0,
        buffered=0,
        uid=uid,
        pid=pid,
    )
