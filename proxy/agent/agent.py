"""The life of a proxy's parts (`proxy.agent.parts`): owns the top nursery, knows the order of starting and stopping.

Starting: the network interfaces, which stay when the proxy ends; then everything else that can fail on this machine
(sockets, ports), so that a failure is one line and leaves nothing behind; then the tasks. Stopping (SIGTERM, SIGINT,
``hostlane drain``): proxy/agent/drain.py. A second signal ends all streams at once.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from control.api.messages import DrainProgress
from control.base.scraping import ScrapeServer
from control.base.system import watchdog
from control.base.system.notify import stopping
from proxy.agent import cpuquota
from proxy.agent.addresswatch import AddressWatch
from proxy.agent.handover import doorstore, fdstore, ownsocket, sender, successor
from proxy.agent.handover.fdstore import FdStore
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, TELEMETRY
from proxy.agent.handover.startup import StartupListeners, open_listeners
from proxy.agent.parts import Parts, warn, warn_of_sources
from proxy.core.finder import core
from proxy.door.kept import MOST_KEPT
from proxy.links import accept
from proxy.links.acceptgate import serve_gated
from proxy.links.carry import HandshakeResult
from proxy.pool.pool import Pool
from proxy.pump import trim
from proxy.pump.heartbeat import Heartbeat
from proxy.telemetry.admin import serve_admin, serve_telemetry
from proxy.telemetry.health import Health
from proxy.telemetry.metrics.handedon import PATIENCE, CountTeller
from proxy.telemetry.metrics.scrape import routes
from proxy.telemetry.page.serve import page

if TYPE_CHECKING:
    from proxy.mesh.membership import Membership

log = structlog.get_logger()

GRACE = 10.0
"""Seconds after the start for which inherited sockets that no upstream uses stay open, in case the map brings their
upstream: a server answers at once, or another one is asked."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Agent(Parts):
    """One proxy, which runs."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the proxy until it has drained; raises, and can be cancelled, as `proxy.agent.process.run`."""
        config = self.config
        warn(config)
        late: str | None = None
        if config.interfaces:
            # Imported here: netlink takes a quarter of a second and 9 MB, which others need not pay.
            from proxy.netdev.apply.ready import prepare

            late = await prepare(config, self._book.elsewhere)
        warn_of_sources(config)
        with ExitStack() as files:
            # First, because until then a signal kills the process at once.
            signals = files.enter_context(trio.open_signal_receiver(*SIGNALS))
            if self.access is not None:
                self.access.open()
                files.callback(self.access.close)
            files.callback(self.pump.shut_down)
            files.callback(self.device.close)
            files.callback(self._network.close)
            files.callback(self.connector.stocks.close_all)
            self.connector.lookups.use()
            kept = tuple if config.door is None or fdstore.room() else partial(doorstore.fetch, config.door)
            startup = await open_listeners(
                config,
                self._instance,
                self.outbound,
                self.draining,
                self.device,
                self.memory,
                self._notices.tell,
                takeover=self._takeover,
                passed=self._passed,
                kept=kept,
                files=files,
                state=self._state,
            )
            self._handover_sockets = handover_sockets = startup.handover_sockets
            self.view.unreachable = lambda: startup.links.missing
            self.view.failing = lambda: [*self.outbound.failing(), *startup.failing()]
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
                nursery.start_soon(self._notices.run)
                nursery.start_soon(trim.run, self.pump.budget, self.pump.slabs)
                if self.recorder is not None:
                    await nursery.start(self.recorder.run)
                if self.access is not None:
                    await nursery.start(self.access.run)
                self._hand_counts_on(startup)
                await startup.replace(self.outbound, config.limits.takeover_timeout)
                if startup.takes_over:  # again: on a busy machine all that time may be gone by now
                    self._others.expect(trio.current_time() + PATIENCE)
                self._store = FdStore(fdstore.room(), self._passed.stored)
                if self.door is not None and not fdstore.room():
                    self._store = FdStore(MOST_KEPT, self._passed.stored, self.door.keep)
                    self.door.came, self.door.went = self._store.look_again, self._store.lost
                self._passed.close()
                if self.door is not None:
                    # Before anything is accepted, so that who has waited for this proxy finds what containers offer.
                    await nursery.start(self.door.run)
                await nursery.start(self.outbound.connect.run)
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
                        metrics=self.metrics.answer,
                        taps=self.taps,
                        gate=startup.own[ADMIN].gate,
                    )
                )
                if (telling := startup.own.get(TELEMETRY)) is not None:
                    path, gate = telling.kept.address, telling.gate
                    await nursery.start(
                        partial(
                            serve_telemetry,
                            telling.listeners,
                            self.view,
                            path,
                            health=health,
                            gate=gate,
                            metrics=self.metrics.answer,
                        )
                    )
                if config.telemetry.page or self.member is not None:
                    nursery.start_soon(self.finder.run)
                if startup.scrape is not None:
                    answers = routes(self.metrics, health)
                    if config.telemetry.page:
                        answers.update(page(self.finder).routes)
                    server = ScrapeServer(answers, config.telemetry.hosts)
                    listeners, gate = startup.scrape.listeners, startup.scrape.gate
                    await nursery.start(serve_gated, gate, server.serve, listeners, "telemetry.listen")
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
                            refused=self.peer_counts.refused,
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
                    links.start_soon(self.reload.watch)
                    links.start_soon(self._end_taps)
                    self._notices.tell("READY=1")
                    if (patience := watchdog.patience()) is not None:
                        nursery.start_soon(self._feed, heart, patience)
                    task_status.started()
                    links.start_soon(self._heed, signals)
                    await self.draining.run()
                    links.cancel_scope.cancel()
                await handover_sockets.tell_last()
                await self.draining.heard()
                if self.member is not None:
                    await self._left.wait()
                    await self.member.close()
                await self._notices.finish()
                nursery.cancel_scope.cancel()
        log.info("proxy stopped", host=config.host)

    def _hand_counts_on(self, startup: StartupListeners) -> None:
        """Go on with the numbers of processes that were taken over, and tell them to the next one."""
        others, predecessors = self._others, startup.predecessors
        predecessors.counted, predecessors.ended = others.heard, others.ended
        predecessors.hurried = lambda: others.waiting
        if startup.takes_over:
            others.expect(trio.current_time() + PATIENCE)
        startup.handover_sockets.counts = CountTeller(self.metrics.counted)

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
            lambda: self.view.failing(),
        )

    async def _feed(self, heart: Heartbeat, seconds: float) -> None:
        """Feed systemd's watchdog until another process has taken over, which does it then; unless systemd does not
        know that one: then it is told to watch nobody, as it would end both.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.feed, heart.beat, seconds)
            await self.draining.told()
            if (successor := self._successor) is not None:
                nursery.cancel_scope.cancel()
                if not watchdog.watches(successor):
                    self._notices.tell(watchdog.OFF)

    async def _end_taps(self) -> None:
        """Who watches streams is to go over to the process that has taken over."""
        await self.draining.told()
        if self._successor is not None:
            self.taps.close()

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
            self._notices.tell(stopping(seconds))

    async def _leave(self, member: Membership) -> None:
        """Tell the control plane that this host leaves when it accepts no more calls: peers end their links to a host
        that has left. Not so if another process of this host has taken over.
        """
        await self.draining.closing.wait()
        await member.leave(handed_over=self._successor is not None)
        self._left.set()

    async def _discard(self) -> None:
        """Close the inherited sockets that no upstream uses; with a control plane or a door after GRACE, as the map may
        still bring their upstreams, and the door containers. Their callers wait in the kernel's queue meanwhile.
        """
        if self.member is not None or self.door is not None:
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
                    if self.access is not None:
                        self.access.look()
                    nursery.start_soon(self.reload.asked)
                elif number == signal.SIGUSR2:
                    nursery.start_soon(successor.start, successor.command())
                else:
                    self._stop(0.0 if told else self.config.limits.stop_timeout)
                    told = True


async def _attend(pool: accept.AcceptingPool, handshake: HandshakeResult) -> None:
    assert isinstance(pool, Pool)
    await pool.attend(handshake.sock, handshake, False)
