"""What a proxy consists of: every part is built here, once, from its configuration, and another configuration becomes
theirs here. None of them runs yet: their life is that of `proxy.agent.agent`.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from control.base.backoff import Backoff
from control.base.system import logs
from control.base.system.cgroup import memory_limit
from control.base.system.keptsocket import SocketKeeper
from control.base.system.notify import Notices
from proxy.agent.doorkeeper import Doorkeeper
from proxy.agent.drain import Drain
from proxy.agent.handover.activation import PassedSockets
from proxy.agent.handover.fdstore import FdStore
from proxy.agent.handover.memoryshares import MemoryShares
from proxy.agent.handover.sockets import HandoverSockets
from proxy.agent.reload import Reload
from proxy.config import memory
from proxy.config.difference import ConfigDifference, between
from proxy.config.placecheck import missing_sources
from proxy.config.schema import Config, PeerConfig, ProxyLimits
from proxy.errors import NotApplied, StartError
from proxy.inbound.inbound import Inbound
from proxy.links.carry import new_id
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello
from proxy.links.keyring import Keyring
from proxy.links.passing import EarlierProcesses, NoEarlierProcess
from proxy.mesh.effective import EffectiveConfig, needed
from proxy.mesh.statelock import StateLock
from proxy.mux.frames import NEWEST_REASON
from proxy.netdev.leases.leases import LeasedAddresses, fill
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.upstreams import Outbound
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.namesakes import Namesakes
from proxy.pool.peercounts import PeerCounts
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pool.record import Recorder
from proxy.pool.suspendedbytes import SuspendedBytes
from proxy.pool.ttl import TtlTerms
from proxy.pool.usage import HANDSHAKE, PoolUsage
from proxy.pump.budget import MemoryBudget
from proxy.pump.busypoll import BusyPoll
from proxy.pump.connecting import Connector
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive
from proxy.pump.seriesbudget import SeriesBudget
from proxy.pump.streamcounts import StreamCounts
from proxy.pump.streamlog import StreamLog
from proxy.pump.streamstats import StreamStats
from proxy.pump.turn import LaneReader
from proxy.routing.allow import AllowRules
from proxy.routing.table import RoutingTable
from proxy.telemetry.accesslog import AccessLog
from proxy.telemetry.metrics.collect import NetworkReader
from proxy.telemetry.metrics.handedon import CountsOfOthers
from proxy.telemetry.metrics.process import ProcessReader
from proxy.telemetry.metrics.scrape import ProxyMetrics
from proxy.telemetry.page.finding import ProblemFinder
from proxy.telemetry.tap import Taps
from proxy.telemetry.view import ProxyView

if TYPE_CHECKING:
    from proxy.mesh.follower import MapClient
    from proxy.mesh.membership import Membership

log = structlog.get_logger()


class Parts:
    """All parts of one proxy, built and not yet running."""

    def __init__(
        self,
        config: Config,
        file: str | None = None,
        control: MapClient | None = None,
        takeover: bool = False,
        book: LeasedAddresses = LeasedAddresses(),  # noqa: B008 - it cannot change
        state: StateLock | None = None,
        passed: PassedSockets | None = None,
    ) -> None:
        self._book, self._state = book, state
        self._passed = passed or PassedSockets()
        static = self._static = fill(config, book.leases)
        config = EffectiveConfig(static).config({})
        self.config = config
        self._takeover = takeover
        self._handover_sockets: HandoverSockets | None = None
        self._notices = Notices()
        self.reload = Reload(file, self.rebase, self.preview, self._notices.tell)
        self.device = LinkDevice(config.links.listen.host, config.links.interface)
        self.keyring = Keyring.from_config(config)
        total, per_peer = _memory(config.limits)
        budget = MemoryBudget(total, per_peer, _send_buffer())
        self.pump = Pump(budget, LaneReader(), BusyPoll(config.pump.looks_for))
        self.connector = Connector(self.pump, self.pump.deadlines, KeepAlive.of(config.tcp))
        series = SeriesBudget(config.telemetry.max_series)
        counts = StreamCounts(series, config.telemetry.sample_streams)
        self.stats = StreamStats(trace=config.log.level == "debug", counts=counts)
        self.peer_counts = PeerCounts(series)
        self.access = None if config.access.to is None else AccessLog(config.access, logs.writer)
        self.stats.access = self.access
        self.taps = Taps(self.access, self._tapped)
        self.pump.budget.link_buffer = memory.link_buffer(_cgroup())
        allowed = AllowRules.from_services(config.services)
        self.namesakes = Namesakes(config.host, lambda: self.pools.everywhere, self.pump.settle)
        notice = self.namesakes.heard_untrusted
        self.inbound = Inbound(config, allowed, self.connector, self.stats, notice, self._streams_of)
        table = RoutingTable.from_config(config)
        self.recorder = Recorder(config.pool.record, config.pool.record_limit) if config.pool.record else None
        self._gaps = GapHistogram(SHARED_MEMORY)
        self._kept = SuspendedBytes(lambda: self.pump.budget.limit)
        self.memory = MemoryShares(budget, lambda: self._kept.total, total, per_peer)
        self.pools = Pools(self._pool, self._forget, self.pump.settle)
        self.pools.adopt(config, config.peers, needed(config, table), False)
        context = CallContext[Call](
            config,
            pump=self.pump,
            deadlines=self.pump.deadlines,
            connector=self.connector,
            pools=self.pools,
            table=table,
            allowed=allowed,
            stats=self.stats,
            random=random.random,
        )
        self.outbound = Outbound(config, context)
        self._network = NetworkReader(lambda: self.config, self.pools, self.outbound, counts, self.peer_counts, series)
        process = ProcessReader(
            lambda: self.config, self.pump, self.reload.count, self.keyring, lambda: self.draining.began,
            lambda: None if self.member is None else self.member.follower,
        )  # fmt: skip
        self._others = CountsOfOthers(self._network.label, self._network.known)
        self.metrics = ProxyMetrics(self._network, process, self._others)
        self.view = ProxyView(config, self.pump, self.pools, self.inbound, context, self.stats)
        self.view.access, self.view.recorder = self.access, self.recorder
        self.view.config_stale = lambda: self.reload.stale
        self.door: Doorkeeper | None = None
        if config.door is not None:
            self.door = Doorkeeper(config.door, self.outbound, self.pools, self._containers_changed)
            self.view.door = self.door.state, self.outbound
        self.draining = Drain(self.outbound, self.pools, self.stats, self.view.streams)
        self.view.drain_left, self.view.namesakes = self.draining.left, self.namesakes.told
        self.view.held_back = self.outbound.held_back
        self.view.connections = lambda: self.outbound.connect.open
        self.finder = ProblemFinder(self.view)
        self._keeper = SocketKeeper()
        keepers = (self._keeper, self.outbound.keeper)
        self.view.missing = lambda: [why for keeper in keepers for why in keeper.in_the_way.values()]
        self._instance, self._left = new_id(), trio.Event()
        self._earlier: EarlierProcesses = NoEarlierProcess()
        self._store = FdStore(0)
        self.member: Membership | None = None
        if static.control is not None:
            # Imported here, so that a proxy without a control plane does not load its client.
            from proxy.mesh.membership import Membership

            self.member = Membership(
                static,
                self.keyring,
                control,
                instance=self._instance,
                apply=self.apply,
                renewed=self.outbound.context.ejections.forget,
                cut=self.pools.cut,
                book=book,
                state=state,
                displaced=self._displaced,
            )
            member = self.member
            self.view.follower, self.view.renewal_error = member.follower, lambda: member.renewal_error
            registration = self.member.follower.registration
            registration.edges, registration.problems = self.view.edges, self.finder.told
            self.finder.changed = registration.tell

    def _tapped(self, service: str, tap: StreamLog | None) -> None:
        self.stats.tapped(service, tap)
        self.inbound.anew(service)
        self.outbound.anew(service)

    def _pool(self, name: str, peer: PeerConfig, needed: bool) -> Pool:
        return Pool(
            self.config,
            name,
            peer,
            pump=self.pump,
            needed=needed,
            hello=self.hello,
            calls=self.inbound,
            backoff=Backoff(random.random),
            credentials=self.credentials,
            usage=PoolUsage(self._gaps, _terms(self.config)),
            recorder=self.recorder,
            kept=self._kept,
            device=self.device,
            count=self.peer_counts.of(name),
        )

    def _forget(self, peer: str) -> None:
        self.inbound.forget(peer)
        self.outbound.context.ejections.forget(peer)
        self.pump.budget.forget(peer)

    def apply(self, config: Config) -> ConfigDifference:
        """Make this the configuration of the running proxy, whole or not at all. Returns what that changed.

        It happens within this call, which does not await: nothing runs in between, so nothing sees half of it. Open
        streams go on, even if their service, upstream or peer is removed. The links of a removed peer end with their
        last stream, at the latest after ``limits.stop_timeout``. Settings of `links` and `limits` that are about links
        hold for new ones. It compares each peer, upstream and service, and does more only for those that differ.

        Raises NotApplied, and nothing has changed, if the configuration differs in a key that only a start reads
        (`difference.FIXED`), if a new socket cannot be opened, if the proxy is about to stop, or if upstreams differ
        and another process is about to take their sockets over.
        """
        if self.draining.began:
            raise NotApplied(["the proxy is about to stop: it takes no configuration any more"])
        difference = between(self.config, config)
        if problems := difference.fixed:
            raise NotApplied(problems)
        of_directories = self.outbound.directories.changed
        sockets_differ = bool(difference.upstreams) or difference.connect or of_directories
        if sockets_differ and self._handover_sockets is not None and self._handover_sockets.reserved:
            raise NotApplied(["another process is about to take over the upstreams' sockets: they cannot change now"])
        inside = self.outbound.of_containers
        if not difference and inside == self.outbound.context.inside and not of_directories:
            self.config = self.view.config = config
            return difference
        with ExitStack() as undo:
            try:
                sockets = self.outbound.prepare(config, undo)
            except StartError as error:
                raise NotApplied([str(error)]) from error
            undo.pop_all()
        # Nothing from here on can fail.
        self.config = self.view.config = config
        if difference.settings:
            self._adopt_settings(config)
        table = RoutingTable.from_config(config, inside)
        allowed = AllowRules.from_services(config.services) if difference.services else self.outbound.context.allowed
        self.inbound.adopt(config, allowed)
        if difference.services:
            warn_of_sources(config)
        for peer in difference.peers:
            self.outbound.context.ejections.forget(peer)
        self.pools.adopt(config, difference.peers, needed(config, table, inside), difference.settings)
        self.outbound.adopt(config, table, allowed, sockets)
        self._store.look_again()
        return difference

    def rebase(self, static: Config) -> ConfigDifference:
        """As `apply`, for another content of the configuration file; what the map adds to it stays."""
        static = fill(static, self._book.leases)
        difference = self._rebase(static)
        self._static = static
        return difference

    def _containers_changed(self) -> ConfigDifference:
        """What containers call or offer has changed. Raises as `apply`."""
        return self._rebase(self._static)

    def _rebase(self, static: Config) -> ConfigDifference:
        if self.door is not None:
            self.door.tell_refused(static)
        static = self._with_offers(static)
        if self.member is None:
            return self.apply(EffectiveConfig(static).config({}))
        return self.member.follower.rebase(static)

    def preview(self, static: Config) -> ConfigDifference:
        """What `rebase` would change. Raises NotApplied if it would, as far as that shows without opening a socket."""
        static = self._with_offers(fill(static, self._book.leases))
        follower = None if self.member is None else self.member.follower
        config = EffectiveConfig(static).config({}) if follower is None else follower.preview(static)
        difference = between(self.config, config)
        if problems := difference.fixed:
            raise NotApplied(problems)
        return difference

    def _with_offers(self, static: Config) -> Config:
        return static if self.door is None else self.door.added_to(static)

    def _adopt_settings(self, config: Config) -> None:
        logs.set_level(config.log.level)
        self.stats.trace = config.log.level == "debug"
        if self.access is not None:
            self.access.adopt(config.access)
        self.pump.busy_poll.set(config.pump.looks_for)
        warn(config)
        self.connector.keep_alive = KeepAlive.of(config.tcp)
        self.memory.configure(*_memory(config.limits))
        for pool in self.pools.everywhere:
            pool.usage.adopt(_terms(config))

    def hello(self, peer: str, session: str) -> Hello:
        """This host's HELLO to a peer."""
        limits = self.config.limits
        return Hello(
            host=self.config.host,
            to=peer,
            instance=self._instance,
            session=session,
            stream_credit=limits.stream_credit,
            max_streams=limits.streams_per_link,
            reasons=NEWEST_REASON,
            via=True,
            beside=self._earlier.instances or msgspec.UNSET,
            opens_per_second=msgspec.UNSET if limits.opens_per_second is None else limits.opens_per_second,
        )

    def _streams_of(self, peer: str) -> int:
        """How many streams a peer has opened. Those of this host's callers are in their upstream's share."""
        pool = self.pools.get(peer)
        return 0 if pool is None else sum(session.called for session in pool.sessions)

    def credentials(self) -> Credentials | None:
        """The credentials for a new handshake; None: no TLS (``security: none``)."""
        if self.config.links.security == "none":
            return None
        assert self.keyring is not None
        return self.keyring.current

    def _displaced(self, displaced: bool) -> None:
        """Another proxy is registered as this host, or is not any more. Links of both would stand in one pool at each
        peer, and calls for that one come here: so this one takes none. Calls of this host still get a link.
        """
        if not self.draining.began:
            self.pools.hush(displaced)


def _memory(limits: ProxyLimits) -> tuple[int, int]:
    """Limits of the memory budget: bytes in all, and for each peer."""
    size = memory.default_memory(_cgroup()) if limits.memory is None else limits.memory
    return size, size // 2 if limits.memory_per_peer is None else limits.memory_per_peer


def _send_buffer() -> int:
    return memory.send_buffer(_cgroup())


def _cgroup() -> int | None:
    """Bytes that this process and those beside it may take; None: as many as there are."""
    found = memory_limit()
    return None if found is None else found.bytes


def warn(config: Config) -> None:
    """Say what of a configuration will not be understood for ever."""
    if config.pump.busy_poll_us is not None:
        log.warning("pump.busy_poll_us is now pump.busy_poll, with a unit", busy_poll=f"{config.pump.busy_poll_us}us")


def warn_of_sources(config: Config) -> None:
    """Say which addresses connections to services cannot come from."""
    for service, source in missing_sources(config):
        log.warning("no interface of this host has an address that connections come from",
                    kind=(service, source), service=service, source=source)  # fmt: skip


def _terms(config: Config) -> TtlTerms:
    pool = config.pool
    return TtlTerms(HANDSHAKE, pool.idle_price / 3600, pool.idle_min, pool.idle_max, pool.open_ahead)
