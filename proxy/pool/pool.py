"""The pool: all sessions to one peer, whoever dialled them.

`policy.next_step` decides what to do next from all that the pool knows at that moment; `Pool.run` does it, and asks
again when something has happened. Links are dialled one at a time (`proxy.pool.dialling`). A stream takes a link that
is up (`proxy.pool.picking`), or waits for one in a bounded list (`proxy.pool.waiting`). A session that has lost its
link waits for another one (`proxy.pool.sessions`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from time import monotonic

import structlog
import trio

from control.base.backoff import Backoff
from proxy.config.schema import Config, PeerConfig
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello
from proxy.links.keepalive import keep_alive
from proxy.links.options import bound_link
from proxy.pool import policy
from proxy.pool.bulk import BulkStreams
from proxy.pool.dialling import Dialler
from proxy.pool.learning import UsageLearner
from proxy.pool.linklog import log_link_down, log_link_up
from proxy.pool.pacing import Pacer
from proxy.pool.peercounts import PeerCount
from proxy.pool.picking import Picker
from proxy.pool.policy import Dial, LinkState, PoolState, Retire, Wait, admits, choose, has_room, wants_more
from proxy.pool.probing import PeerProbe
from proxy.pool.record import Recorder
from proxy.pool.sessions import IpAddress, PoolSessions, ip_of
from proxy.pool.suspendedbytes import SuspendedBytes
from proxy.pool.usage import PoolUsage
from proxy.pool.waiting import Waiter, WaitingList
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.session import CallHandler, LaneSession

log = structlog.get_logger()


class Pool:
    """All sessions to one peer and the links that carry them.

    Args:
        name, peer: the peer's host name and configuration.
        needed: whether an upstream of this host names a service of the peer (`PoolState.needed`).
        hello: makes this host's HELLO for a dial or an answer, from (peer, session id).
        calls: delivers the streams that the peer opens.
        credentials: returns those for the next handshake; None: no TLS (``security: none``).
        kept: counts what sessions without a link keep, of all pools; None: of this one.
        device: what dials are bound to; None: what the configuration says.
        count: what is counted of the peer for good; None: for as long as this pool lives.

    Attributes:
        met_at: where its last link came from or led to; None: there was none.
        count: as given.
        links: those that are up; one that is leaving (GOAWAY) stays until its last stream has ended.
        sessions: those of the links, and those that have lost theirs and wait for another one.
        usage: what the pool has learnt from its streams.
        why: by name of a link that was dialled here, why.
        picker: picks links for new streams; pick: its `Picker.pick`.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        peer: PeerConfig,
        *,
        pump: Pump,
        needed: bool,
        hello: Callable[[str, str], Hello],
        calls: CallHandler,
        backoff: Backoff,
        credentials: Callable[[], Credentials | None] = lambda: None,
        usage: PoolUsage,
        recorder: Recorder | None = None,
        kept: SuspendedBytes | None = None,
        device: LinkDevice | None = None,
        count: PeerCount | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._pump = pump
        self._needed = needed
        self._hello = hello
        self._credentials = credentials
        self.usage = usage
        self.count = count or PeerCount()
        self.count.use(name, usage)
        self.met_at: IpAddress | None = None
        self._unused = self._invited = self._bulk_asked = self._draining = self._announced = False
        self._pacing = False
        self._asked: tuple[Link, tuple[int, int]] | None = None
        self._bulk = BulkStreams(usage)
        self.why: dict[str, str] = {}
        self._waiters = WaitingList()
        self._pacer = Pacer(self._waiters)
        self.picker = Picker(usage, self._bulk, self._pacer, self._ask, lambda: self._changed.set())
        self.links, self.pick = self.picker.links, self.picker.pick
        self._learning = UsageLearner(name, usage, self._bulk, recorder, self._waiters, self._stream_ended)
        self.sessions = PoolSessions(
            name, config.links, pump=pump, calls=calls, usage=self._learning, leaving=lambda: self._changed.set(),
            kept=kept or SuspendedBytes(lambda: pump.budget.limit), peer_count=self.count,
        )  # fmt: skip
        self._dialler = Dialler(
            name, peer, config.links, hello=hello, credentials=credentials, backoff=backoff, usage=usage,
            sessions=self.sessions,
            device=device or LinkDevice(config.links.listen.host, config.links.interface),
        )  # fmt: skip
        self._probe = PeerProbe(self.sessions, self._dialler, self._is_there)
        self._changed = trio.Event()

    def adopt(self, config: Config, peer: PeerConfig, needed: bool) -> None:
        """Follow another configuration from now on. Links that are up stay as they are; the next dial goes to the new
        address, at once if a dial to the old one is under way or was waiting for its backoff. Raises nothing.
        """
        self._config, self._needed, self.sessions.settings = config, needed, config.links
        self._dialler.adopt(config.links, peer)
        self._changed.set()

    # Dialling

    @property
    def peer(self) -> PeerConfig:
        """The peer's configuration."""
        return self._dialler.peer

    @property
    def dialling(self) -> bool:
        """Whether a handshake is under way."""
        return self._dialler.busy

    @property
    def dials(self) -> int:
        """Handshakes that this side has begun, those that failed included."""
        return self._dialler.dials

    @property
    def last_error(self) -> str | None:
        """Why the last dial failed; None after one that did not. Refused as DUPLICATE, a dial leaves it as it is."""
        return self._dialler.last_error

    @property
    def retry_at(self) -> float | None:
        """Time by trio's clock before which there is no next dial; None: a dial need not wait."""
        return self._dialler.retry_at

    # Streams

    def _ask(self, bulk: bool) -> None:
        """One more link would be worth its handshake, for `bulk` or not. If there may be one, decide again."""
        if self._has_room():
            self._bulk_asked |= bulk
            self._changed.set()

    def _has_room(self) -> bool:
        return has_room(self._taking + self.sessions.count(dialled=True), self._leaving, self.limit)

    def invite(self) -> None:
        """Dial soon, though no stream waits: balancing has preferred this idle peer to a busy one that has a link."""
        self._invited = True
        self._changed.set()

    def hurry(self) -> None:
        """Whatever dial is due, do not wait for its backoff."""
        self._dialler.hurry()
        self._changed.set()

    def _is_there(self) -> None:
        """The peer, with which sessions wait for a link, listens: dial at once. Where the peer is to dial, its proxy
        may be another process by now, which knows of none of them: a link of ours finds that out.
        """
        self._invited = self._invited or any(not session.dialled for session in self.sessions.suspended)
        self.hurry()

    @property
    def limit(self) -> int:
        """Links that this pool may have (links.max_per_peer)."""
        return self._config.links.max_per_peer

    @property
    def idle(self) -> bool:
        """Whether there is no link, or soon will be none, because nothing used the last one, or because nothing has
        called the peer yet.
        """
        waits = self._needed or self.dialling or self.last_error is not None or self.sessions.suspended
        if not self.links and not waits:
            return True
        return self._unused or (self._taking == 0 and any(link.session.retiring for link in self.links))

    @property
    def up(self) -> bool:
        """Whether a link is up that takes one more stream, now or as soon as the peer's rate allows."""
        return any(link.usable for link in self.links)

    @property
    def opens_per_second(self) -> int | None:
        """Streams that the peer takes in a second, as it told with its last link; None: it does not count them."""
        return self._pacer.rate

    @property
    def paces(self) -> bool:
        """Whether streams wait for nothing but the peer's rate."""
        return self.opens_per_second is not None and self.up

    @property
    def streams(self) -> int:
        """Streams of all sessions."""
        return sum(len(session.streams) for session in self.sessions)

    @property
    def waiting(self) -> int:
        """Streams that wait for a link."""
        return len(self._waiters)

    def wait(self, waiter: Waiter) -> bool:
        """Put a stream on the waiting list, which asks for a dial; False: the list is full."""
        if not self._waiters.add(waiter, self._config.limits.waiting_streams):
            return False
        self._learning.look()
        self._changed.set()
        self._pace()
        return True

    def leave(self, waiter: Waiter) -> bool:
        """Take a stream off the waiting list; False: it is not there."""
        return self._waiters.remove(waiter)

    # Links

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what `next_step` decides, until cancelled; links that this side dialled end then, as STOPPED."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe.run)
            task_status.started()
            while True:
                self._changed = trio.Event()
                match self.next_step(trio.current_time()):
                    case Retire(link):
                        link.retire()
                    case Wait(until):
                        with trio.CancelScope(deadline=until):
                            await self._changed.wait()
                    case dial:
                        await self._dial(nursery, dial)

    def next_step(self, now: float) -> Dial[LaneSession] | Retire[Link] | Wait:
        """Bring up to date what streams have proved and which link is at hand, and decide what to do at `now`."""
        self._bulk.look(self.sessions, now)
        self.picker.look()
        self._learning.look()
        self._bulk_asked = self._bulk_asked and self._lacks_bulk_link()
        return policy.next_step(self._state(now))

    def _lacks_bulk_link(self) -> bool:
        """Whether some service is heavy, its streams could do with one more link, and there may be one. What they have
        asked for is forgotten otherwise: it would be dialled when a link has ended or heavy streams have, for nobody.
        """
        best = choose(self.links, True)
        return self.usage.any_bulk and self._has_room() and (best is None or wants_more(best, True))

    def _state(self, now: float) -> PoolState[Link, LaneSession]:
        links = tuple(
            LinkState(
                link,
                dialled=link.dialled,
                usable=link.usable,
                leaving=link.leaving,
                congested=link.congested,
                queueing=link.queueing,
                bulk=link.bulk,
                streams=link.streams,
                unused_for=monotonic() - link.session.idle_since,
            )
            for link in self.links
        )
        return PoolState(
            now,
            self.limit,
            self.usage.wanted(now),
            links,
            needed=self._needed,
            idle=self.idle,
            waiting=len(self._waiters),
            invited=self._invited,
            bulk=self._bulk_asked,
            lost=self.sessions.to_dial(),
            untold=self.sessions.untold,
            suspended=self.sessions.count(),
            suspended_ours=self.sessions.count(dialled=True),
            draining=self._draining,
            retry_at=self.retry_at,
        )

    @property
    def _taking(self) -> int:
        return sum(not link.leaving for link in self.links)

    @property
    def _leaving(self) -> int:
        return len(self.links) - self._taking

    async def _dial(self, nursery: trio.Nursery, step: Dial[LaneSession]) -> None:
        """Dial once (`Dialler.dial`); the new link's task runs in `nursery`, which is the caller's own."""
        self._invited = False
        self._bulk_asked = self._bulk_asked and not step.bulk

        def join(handshake: HandshakeResult, session: LaneSession | None) -> Link:
            return self._join(handshake.sock, handshake, True, step.ahead and not self._waiters, session)

        link = await self._dialler.dial(step.session, join, lambda: self._draining and not self._waiters)
        if link is not None:
            if step.session is None:
                self.why = {each.name: self.why.get(each.name, "") for each in self.sessions} | {link.name: step.why}
            nursery.start_soon(self._look_after, link)

    def absent(self, hello: Hello) -> Mapping[str, bool]:
        """As `links.accept.AcceptingPool.absent` says."""
        return self.sessions.absent(hello)

    def resumes(self, hello: Hello) -> int | None:
        """As `links.accept.AcceptingPool.resumes` says. A known session goes on while this host drains, too."""
        session = self.sessions.asked_untrusted(hello)
        return session.received if session else None

    def refuses(self) -> CloseReason | None:
        """Why one more link that the peer dialled is refused; None: it is accepted."""
        if self._draining or self._announced:
            return CloseReason.DRAINING
        if self._leaving >= policy.MOST_LEAVING:
            return CloseReason.OVERLOADED
        links, dialling = self._taking + self.sessions.count(), self._dialler.busy and self._dialler.afresh
        welcome = admits(links=links, dialling=dialling, limit=self.limit, own=self._config.host, peer=self.name)
        return None if welcome else CloseReason.DUPLICATE

    def announce(self) -> None:
        """Tell the peer to open no more streams here, and accept no new links from it. This host still opens streams,
        and dials for them, until `drain`.
        """
        self._announced = True
        for session in self.sessions:
            session.announce()
        self._pump.settle()

    def drain(self) -> None:
        """Take no new streams and no new links; streams that are open go on, and each link ends with its last one. For
        streams that wait already a link is still dialled: their callers' connections have been accepted.
        """
        self._draining = True
        if not self._waiters:
            self._dialler.give_up()
        for session in self.sessions:
            session.drain()
        self._pump.settle()

    def revive(self) -> None:
        """Take new streams and new links again after `drain`; links that are leaving still leave."""
        self._draining = self._announced = False
        self._changed.set()

    def cut(self, revoked: Container[str]) -> None:
        """End the sessions, as REVOKED, whose peer showed one of these certificates (serial numbers), and their links.
        The caller settles the pump.
        """
        for session in self.sessions:
            if (serial := self.sessions.link(session).serial) in revoked:
                session.stop(CloseReason.REVOKED, f"certificate {serial}")

    async def attend(self, sock: socket.socket, handshake: HandshakeResult, dialled: bool) -> None:
        """Make a link of `sock`, which then belongs to it, and look after it until it has ended and its session is over
        or has another link. Cancelled, it ends link and session as STOPPED.
        """
        session = self.sessions.waiting(handshake.hello)
        try:
            link = self._join(sock, handshake, dialled, False, session)
        except HandshakeError as error:
            if session is None:
                self.sessions.note_unbegun(handshake.hello.session)
            log.warning("link lost at once", kind=(self.name,), peer=self.name, error=str(error))
        else:
            self.count.shaken("inbound", "ok")
            await self._look_after(link)

    def _join(
        self, sock: socket.socket, handshake: HandshakeResult, dialled: bool, ahead: bool, session: LaneSession | None
    ) -> Link:
        """Add a link, opened `ahead` of an expected use or not, on which `session` goes on or, if None, a new one
        begins; the caller runs `_look_after` next. Raises HandshakeError, and closes `sock`, if the peer has reset it
        or its certificate has been revoked since the handshake.
        """
        credentials = self._credentials()
        if credentials is not None and handshake.serial in credentials.revoked:
            sock.close()
            raise HandshakeError("the peer's certificate has been revoked", CloseReason.REVOKED)
        if bound := self._pump.budget.link_buffer:
            bound_link(sock, bound)
        own = self._hello(self.name, handshake.hello.session)
        if session is None:
            session = self.sessions.begin(handshake.hello, own, dialled)
        else:  # what both sides count, in place of what they told for the last link
            session.local = replace(session.local, opens_per_second=own.settings.opens_per_second)
        link = self.sessions.put(sock, handshake, session)
        self._dialler.hurry()
        if not dialled:
            self.sessions.untold = False
        self._pacer.tell(handshake.hello.settings.opens_per_second)
        self.picker.add(link, ahead)
        self._unused, self.met_at = False, ip_of(link.remote_address)
        self.usage.link_up(trio.current_time())
        self._changed.set()
        log_link_up(link, ahead)
        link.start(handshake.leftover)
        self._serve_waiters(dialled)
        if self._draining and not link.session.over:
            link.drain()
        elif self._announced and not link.session.over:
            link.session.announce()
            self._pump.settle()
        return link

    async def _look_after(self, link: Link) -> None:
        try:
            await keep_alive(link, self._config.links.ping_interval, self._config.links.ping_timeout)
        finally:
            link.doom(CloseReason.STOPPED)
            self._pump.settle()
            self._lost(link)
            await self.sessions.outlive(link.session)
            self._changed.set()

    def _lost(self, link: Link) -> None:
        self.picker.remove(link)
        session = link.session
        # A session of which the peer may not have heard: a link of ours finds out, if it does not come back by itself.
        self._invited |= session.suspended and session.expendable and not session.going_away and bool(session.streams)
        expected = link.reason in (CloseReason.STOPPED, CloseReason.IDLE)
        self._unused = link.reason is CloseReason.IDLE and not self._taking
        self._dialler.lost(link)
        self.count.link_ended(link.reason)
        log_link_down(link, expected)
        self._changed.set()

    def _stream_ended(self) -> None:
        """A stream has ended, and others wait. This runs inside a turn, before the ended stream's observer is told, so
        the next one starts when the turn ends.
        """
        self._pump.at_end(self._serve_one)

    def _serve_one(self) -> None:
        """The first of the streams that wait because no link takes one more gets the place of one that has ended."""
        if self.opens_per_second is not None:
            self._pace()
        elif self._waiters and choose(self.links) is not None:
            self._waiters.serve_one()

    def _pace(self) -> None:
        """Look again at the streams that wait when the peer's rate allows the next one."""
        if self.paces and self._waiters and not self._pacing:
            self._pacing = True
            self._pump.deadlines.add(self._pacer.wait(trio.current_time()), self._serve_paced)

    def _serve_paced(self) -> None:
        """Streams that wait go out, in their order, until the first for which the rate allows no more."""
        self._ask_whether_it_arrived()
        self._pacer.serving = True
        for waiting in range(len(self._waiters), 0, -1):
            if not self._pacer.due(trio.current_time()) or len(self._waiters) > waiting:
                break  # the second: the one served last waits again, as no link took it
            self._waiters.serve_one()
        self._pacer.serving = self._pacing = False
        self._pace()

    def _ask_whether_it_arrived(self) -> None:
        """One PING for what was opened on a link since the last answer, and no more until that has come."""
        for link in self.links:
            self._pacer.heard(link, link.answered)
        doubtful = self._pacer.doubtful
        for link in self.links:
            if link is doubtful and self._asked != (link, link.answered):
                self._asked = link, link.answered
                link.ping()

    def _serve_waiters(self, dialled: bool) -> None:
        usage = self.usage
        avoided, warm = usage.avoided, usage.warm
        self._pacer.serving = True
        self._waiters.serve_all()
        self._pacer.serving = False
        usage.warm = warm  # streams that have waited for a link did not find one
        if dialled and usage.avoided > avoided:
            usage.avoided -= 1  # one of them had to wait for this handshake: it was not avoided
        self._pump.settle()
