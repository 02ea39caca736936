"""The composition root: builds every part once, owns the top nursery, and knows the order of starting and stopping.

Starting: the network interfaces, which stay when the proxy ends; then everything else that can fail on this machine
(sockets, ports), so that a failure is one line and leaves nothing behind; then the tasks. While the proxy runs,
`Agent.apply` changes its configuration. Stopping (SIGTERM, SIGINT, ``hostlane drain``): proxy/agent/drain.py. A second
signal ends all streams at once.
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from control.api.messages import DrainProgress
from control.base.backoff import Backoff
from control.base.system import logs
from control.base.system.cgroup import memory_limit
from control.base.system.keptsocket import SocketKeeper
from proxy.agent import cpuquota
from proxy.agent.addresswatch import AddressWatch
from proxy.agent.drain import Drain
from proxy.agent.handover import fdstore, ownsocket, sender, successor
from proxy.agent.handover.activation import PassedSockets
from proxy.agent.handover.fdstore import FdStore
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, TELEMETRY
from proxy.agent.handover.memoryshares import MemoryShares
from proxy.agent.handover.receiver import PredecessorEnded
from proxy.agent.handover.sockets import HandoverSockets
from proxy.agent.handover.startup import open_listeners
from proxy.agent.reload import Reload
from proxy.config import memory
from proxy.config.difference import ConfigDifference, between
from proxy.config.schema import Config, PeerConfig, ProxyLimits
from proxy.core.finder import core
from proxy.errors import NotApplied, StartError
from proxy.inbound.delivery import Inbound
from proxy.links import accept
from proxy.links.carry import HandshakeResult, new_id
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello
from proxy.links.keyring import Keyring
from proxy.links.passing import EarlierProcesses, NoEarlierProcess
from proxy.mesh.effective import EffectiveConfig, needed
from proxy.mesh.statelock import StateDirHeld, StateLock
from proxy.mux.frames import NEWEST_REASON
from proxy.netdev.leases.leases import LeasedAddresses, fill
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.upstreams import Outbound
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.namesakes import Namesakes
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pool.record import Recorder
from proxy.pool.suspendedbytes import SuspendedBytes
from proxy.pool.ttl import TtlTerms
from proxy.pool.usage import HANDSHAKE, PoolUsage
from proxy.pump import trim
from proxy.pump.budget import MemoryBudget
from proxy.pump.busypoll import BusyPoll
from proxy.pump.connecting import Connector
from proxy.pump.heartbeat import Heartbeat
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive, knowing_ourselves
from proxy.pump.streamstats import StreamStats
from proxy.pump.turn import collect
from proxy.routing.allow import AllowRules
from proxy.routing.table import RoutingTable
from proxy.telemetry import watchdog
from proxy.telemetry.admin import serve_admin, serve_telemetry
from proxy.telemetry.health import Health
from proxy.telemetry.notify import notify, stopping
from proxy.telemetry.view import ProxyView

if TYPE_CHECKING:
    from proxy.mesh.follower import MapClient
    from proxy.mesh.membership import Membership

log = structlog.get_logger()

GRACE = 10.0
"""Seconds after the start for which inherited sockets that no upstream uses stay open, in case the map brings their
upstream: a server answers at once, or another one is asked."""
STARTS, PAUSE = 20, 0.1
"""How often a start is tried while the proxy to take over from is ending, and seconds between two."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Agent:
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
        static = fill(config, book.leases)
        config = EffectiveConfig(static).config({})
        self.config = config
        self._takeover = takeover
        self._handover_sockets: HandoverSockets | None = None
        self.reload = Reload(file, self.rebase)
        self.device = LinkDevice(config.links.listen.host, config.links.interface)
        self.keyring = Keyring.from_config(config)
        total, per_peer = _memory(config.limits)
        budget = MemoryBudget(total, per_peer, _send_buffer())
        self.pump = Pump(budget, collect, BusyPoll(config.pump.looks_for))
        self.connector = Connector(self.pump, self.pump.deadlines, KeepAlive.of(config.tcp))
        self.stats = StreamStats(trace=config.log.level == "debug")
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
        self.view = ProxyView(config, self.pump, self.pools, self.inbound, context, self.stats)
        self.draining = Drain(self.outbound, self.pools, self.stats, self.view.streams)
        self.view.drain_left, self.view.namesakes = self.draining.left, self.namesakes.told
        self.view.held_back = self.outbound.held_back
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
            self.view.follower = self.member.follower

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
        if difference.upstreams and self._handover_sockets is not None and self._handover_sockets.reserved:
            raise NotApplied(["another process is about to take over the upstreams' sockets: they cannot change now"])
        if not difference:
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
        table = RoutingTable.from_config(config)
        allowed = AllowRules.from_services(config.services) if difference.services else self.outbound.context.allowed
        self.inbound.adopt(config, allowed)
        for peer in difference.peers:
            self.outbound.context.ejections.forget(peer)
        self.pools.adopt(config, difference.peers, needed(config, table), difference.settings)
        self.outbound.adopt(config, table, allowed, sockets)
        self._store.look_again()
        return difference

    def rebase(self, static: Config) -> ConfigDifference:
        """As `apply`, for another content of the configuration file; what the map adds to it stays."""
        static = fill(static, self._book.leases)
        if self.member is None:
            return self.apply(EffectiveConfig(static).config({}))
        return self.member.follower.rebase(static)

    def _adopt_settings(self, config: Config) -> None:
        logs.set_level(config.log.level)
        self.stats.trace = config.log.level == "debug"
        self.pump.busy_poll.set(config.pump.looks_for)
        _warn(config)
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

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the proxy until it has drained; raises, and can be cancelled, as `proxy.agent.agent.run`."""
        config = self.config
        _warn(config)
        late: str | None = None
        if config.interfaces:
            # Imported here: netlink takes a quarter of a second and 9 MB, which others need not pay.
            from proxy.netdev.apply.ready import prepare

            late = await prepare(config, self._book.elsewhere)
        with ExitStack() as files:
            # First, because until then a signal kills the process at once.
            signals = files.enter_context(trio.open_signal_receiver(*SIGNALS))
            files.callback(self.pump.shut_down)
            files.callback(self.device.close)
            self.connector.lookups.use()
            startup = await open_listeners(
                config,
                self._instance,
                self.outbound,
                self.draining,
                self.device,
                self.memory,
                takeover=self._takeover,
                passed=self._passed,
                files=files,
                state=self._state,
            )
            self._handover_sockets = handover_sockets = startup.handover_sockets
            self.view.unreachable = lambda: startup.links.missing
            if self.member is not None:
                registration = self.member.follower.registration
                registration.unreachable, startup.links.came = self.view.unreachable, registration.renew
            self._earlier = startup.predecessors
            heart = Heartbeat(self.pump)
            files.callback(heart.close)
            if self.recorder is not None:
                self.recorder.open()
                files.callback(self.recorder.close)
            if self.member is not None:
                # Before anything is accepted, so that the upstreams of the last map have sockets, inherited or new.
                await self.member.follower.begin()
            async with trio.open_nursery() as nursery:
                await nursery.start(self.pump.run)
                nursery.start_soon(cpuquota.watch, self.pump.busy_poll)
                nursery.start_soon(trim.run, self.pump.budget, self.pump.slabs)
                if self.recorder is not None:
                    await nursery.start(self.recorder.run)
                await startup.replace(self.outbound, config.limits.takeover_timeout)
                self._store = FdStore(fdstore.room(), self._passed.stored)
                self._passed.close()
                self.outbound.listen()
                health = self._health(heart).questions
                await nursery.start(
                    partial(
                        serve_admin,
                        startup.own[ADMIN].listeners,
                        self.view,
                        self,
                        commanders=startup.commanders,
                        health=health,
                        gate=startup.own[ADMIN].gate,
                    )
                )
                if (telling := startup.own.get(TELEMETRY)) is not None:
                    path, gate = telling.kept.address, telling.gate
                    await nursery.start(
                        partial(serve_telemetry, telling.listeners, self.view, path, health=health, gate=gate)
                    )
                if config.links.security == "none":
                    log.warning("links are neither encrypted nor authenticated", security="none")
                if self.keyring is not None:
                    nursery.start_soon(self.keyring.watch)
                async with trio.open_nursery() as links:
                    if self.member is not None:
                        await links.start(self.member.keep)
                    await links.start(self.pools.run)
                    await links.start(
                        partial(
                            accept.serve,
                            startup.links.all,
                            own=config.host,
                            patience=lambda: self.config.links.dial_timeout,
                            find=self.pools.get,
                            expected=self.pools.expects,
                            hello=self.hello,
                            attend=_attend,
                            credentials=self.credentials,
                            gate=handover_sockets.links_gate,
                            earlier=startup.predecessors,
                            passed=handover_sockets.passed,
                        )
                    )
                    links.start_soon(startup.links.keep, handover_sockets)
                    if config.interfaces:
                        from proxy.netdev.apply.keep import keep

                        links.start_soon(partial(keep, config, self._book.elsewhere, late=late))
                    nursery.start_soon(
                        sender.serve,
                        startup.own[HANDOVER].listeners,
                        handover_sockets,
                        startup.own[HANDOVER].gate,
                        startup.successors,
                    )
                    links.start_soon(handover_sockets.heed)
                    links.start_soon(startup.predecessors.share, self.memory)
                    if self.member is not None:
                        await links.start(self.member.follower.run)
                        nursery.start_soon(self._leave, self.member)
                    await links.start(self._keep_stored)
                    self.device.ready()
                    log.info(
                        "proxy ready",
                        host=config.host,
                        listen=config.links.listen.hostport,
                        upstreams=list(self.config.upstreams),
                        services=list(config.services),
                        security=config.links.security,
                        core=core(),
                    )
                    links.start_soon(self._discard)
                    links.start_soon(self.outbound.keep_in_place)
                    links.start_soon(ownsocket.keep, handover_sockets.own, self._keeper, handover_sockets)
                    links.start_soon(AddressWatch(self.pools, startup.links.look_again).run)
                    links.start_soon(self.namesakes.run)
                    notify("READY=1")
                    if (patience := watchdog.patience()) is not None:
                        nursery.start_soon(self._feed, heart, patience)
                    task_status.started()
                    links.start_soon(self._heed, signals)
                    await self.draining.run()
                    links.cancel_scope.cancel()
                await self.draining.heard()
                if self.member is not None:
                    await self._left.wait()
                    await self.member.close()
                nursery.cancel_scope.cancel()
        log.info("proxy stopped", host=config.host)

    def _health(self, heart: Heartbeat) -> Health:
        follower = None if self.member is None else self.member.follower
        return Health(
            heart,
            self.outbound.sockets,
            self.pools,
            self.keyring,
            follower,
            lambda: self.draining.began,
            lambda: self.view.unreachable(),
        )

    async def _feed(self, heart: Heartbeat, seconds: float) -> None:
        """Feed systemd's watchdog until another process has taken over, which does it then; unless systemd does not
        know that one: then it is told to watch nobody, as it would end both.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.feed, heart, seconds)
            await self.draining.told()
            if (successor := self._successor) is not None:
                nursery.cancel_scope.cancel()
                if not watchdog.watches(successor):
                    notify(watchdog.OFF)

    @property
    def _successor(self) -> int | None:
        """The process that has taken over; None: none has."""
        sockets = self._handover_sockets
        return None if sockets is None or not sockets.left else sockets.successor

    def drain(self, seconds: float | None = None) -> AsyncGenerator[DrainProgress, None]:
        """Begin to end the proxy (`Drain.begin`), and report the progress (`Drain.follow`).

        Args:
            seconds: None: ``limits.stop_timeout``.
        """
        self._stop(self.config.limits.stop_timeout if seconds is None else seconds)
        return self.draining.follow()

    def _stop(self, seconds: float) -> None:
        if self.member is not None:
            self.member.follower.stop()  # no configuration is applied while the proxy ends
        self.draining.begin(seconds)
        # The service does not stop with a process that was taken over: systemd would kill the other one, too.
        if self._successor is None:
            notify(stopping(seconds))

    def _displaced(self, displaced: bool) -> None:
        """Another proxy is registered as this host, or is not any more. Links of both would stand in one pool at each
        peer, and calls for that one come here: so this one takes none. Calls of this host still get a link.
        """
        if not self.draining.began:
            self.pools.hush(displaced)

    async def _leave(self, member: Membership) -> None:
        """Tell the control plane that this host leaves when it accepts no more calls: peers end their links to a host
        that has left. Not so if another process of this host has taken over.
        """
        await self.draining.closing.wait()
        await member.leave(handed_over=self._successor is not None)
        self._left.set()

    async def _discard(self) -> None:
        """Close the inherited sockets that no upstream uses; with a control plane after GRACE, as the map may still
        bring their upstreams. Their callers wait in the kernel's queue meanwhile.
        """
        if self.member is not None:
            await trio.sleep(GRACE)
        self.outbound.sockets.discard()
        self._store.look_again()

    async def _keep_stored(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Have systemd store the upstreams' sockets, until the proxy stops or another process has them."""
        self.outbound.bound_again = self._store.look_again
        async with trio.open_nursery() as nursery:
            await nursery.start(self._store.run, lambda: self.outbound.sockets.all)
            task_status.started()
            await self.draining.told()
            nursery.cancel_scope.cancel()

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        """SIGHUP: reload; SIGUSR2: start a successor; SIGTERM and SIGINT: drain, and at the second one end at once."""
        told = False
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if number == signal.SIGHUP:
                    nursery.start_soon(self.reload.asked)
                elif number == signal.SIGUSR2:
                    nursery.start_soon(successor.start, successor.command())
                else:
                    self._stop(0.0 if told else self.config.limits.stop_timeout)
                    told = True


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


def _warn(config: Config) -> None:
    if config.pump.busy_poll_us is not None:
        log.warning("pump.busy_poll_us is now pump.busy_poll, with a unit", busy_poll=f"{config.pump.busy_poll_us}us")


def _terms(config: Config) -> TtlTerms:
    pool = config.pool
    return TtlTerms(HANDSHAKE, pool.idle_price / 3600, pool.idle_min, pool.idle_max, pool.open_ahead)


async def _attend(pool: accept.AcceptingPool, handshake: HandshakeResult) -> None:
    assert isinstance(pool, Pool)
    await pool.attend(handshake.sock, handshake, False)


async def run(
    config: Config,
    file: str | None = None,
    takeover: bool = False,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one proxy until SIGTERM or SIGINT.

    Args:
        file: the file that the configuration was read from, for a reload; None: it is not from a file.
        takeover: take the place of the proxy that runs in the same run_dir, if one does.

    Raises StartError if it cannot start on this machine, and ConfigError if its certificate files are wrong. If it is
    cancelled, it ends all streams at once; nothing stays behind but directories.
    """
    passing: tuple[type[StartError], ...] = (PredecessorEnded,)
    with closing(PassedSockets()) as passed:
        for tries_left in reversed(range(STARTS)):
            try:
                with knowing_ourselves():
                    return await _run(config, file, takeover, passed, task_status)
            except Exception as error:
                if not tries_left or not _consists_of(error, passing):
                    raise
            passing = (PredecessorEnded, StateDirHeld)  # of its files, the system closes the lock at some time, too
            await trio.sleep(PAUSE)


def _consists_of(error: Exception, kinds: tuple[type[StartError], ...]) -> bool:
    return isinstance(error, kinds) or (isinstance(error, ExceptionGroup) and error.split(kinds)[1] is None)


async def _run(
    config: Config, file: str | None, takeover: bool, passed: PassedSockets, task_status: trio.TaskStatus[None]
) -> None:
    book, state = LeasedAddresses(), None
    with ExitStack() as held:
        if config.control is not None:
            from proxy.mesh.join import ensure
            from proxy.netdev.leases.addressbook import at_start

            state = StateLock(config.control.state_dir)
            held.callback(state.close)
            # Before anything is written there; a certificate is made by the process that works there.
            if await trio.to_thread.run_sync(partial(state.take, patient=takeover)):
                await ensure(config, random.random)
            book = await at_start(config, random.random)
        agent = Agent(config, file, takeover=takeover, book=book, state=state, passed=passed)
        await agent.run(task_status=task_status)
