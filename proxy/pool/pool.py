"""The pool: all sessions to one peer, whoever dialled them. It dials one link at a time (`proxy.pool.dialling`), and
streams wait for it, within bounds. Those that it dialled and that nothing uses are closed again when `usage` says so. A
session that has lost its link waits for another one (`proxy.pool.sessions`)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Container
from time import monotonic
from typing import Protocol

import structlog
import trio

from control.base.backoff import Backoff
from proxy.config.schema import Config, Peer
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import Shaken
from proxy.links.credentials import Credentials
from proxy.links.handshake import Hello
from proxy.links.keepalive import keep_alive
from proxy.pool.bulk import Bulk
from proxy.pool.dialling import Dialler
from proxy.pool.learning import Learning
from proxy.pool.policy import CROWDED, MOST_LEAVING, Standing, admits, choose, should_dial, wants_more
from proxy.pool.record import Recorder
from proxy.pool.sessions import Sessions, tell_down, tell_up
from proxy.pool.usage import Usage
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.session import Calls, LaneSession

log = structlog.get_logger()

SPARE = 60.0
"""Seconds that a link without streams is kept beside another one: a crowd that comes back does so within a minute."""
LOOK = 5.0
"""Seconds between looks at a pool that has links: whether they are wanted, whether streams have proved heavy. A use
that comes and goes in between wakes nobody, since waking costs as much as the use; so a TTL is kept to within this."""


class Waiter(Protocol):
    """A stream that waits for a link."""

    def link_up(self) -> None:
        """There is a link now. Called at most once, after the waiter was taken off the list."""


class Pool:
    """See the module's text.

    Args:
        name, peer: the peer's host name and configuration.
        needed: whether an upstream of this host uses the peer (`policy.Standing`).
        hello: makes this host's HELLO for a dial or an answer, from (peer, session id).
        calls: delivers what the peer opens.
        credentials: those that a new handshake uses; None: no TLS (``security: none``).

    Attributes:
        links: those that are up; one that is leaving (GOAWAY) stays until its streams are through.
        sessions: those of the links, and those that wait for one.
        usage: what the pool has learnt.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        peer: Peer,
        *,
        pump: Pump,
        needed: bool,
        hello: Callable[[str, str], Hello],
        calls: Calls,
        backoff: Backoff,
        credentials: Callable[[], Credentials | None] = lambda: None,
        usage: Usage,
        recorder: Recorder | None = None,
    ) -> None:
        self.name = name
        self.links: list[Link] = []
        self._config = config
        self._pump = pump
        self._needed = needed
        self._hello = hello
        self._credentials = credentials
        self.usage = usage
        self._unused = self._invited = self._bulk_asked = self._serving = False
        self._bulk = Bulk(usage)
        self._waiters: dict[Waiter, None] = {}
        self._learning = Learning(name, usage, self._bulk, recorder, self._waiters, self._stream_ended)
        self.sessions = Sessions(
            name, config.links, pump=pump, calls=calls, usage=self._learning, leaving=lambda: self._changed.set()
        )
        self._opened_ahead: Link | None = None
        self._dialler = Dialler(
            name, peer, config.links, hello=hello, credentials=credentials, backoff=backoff, usage=usage,
            sessions=self.sessions,
        )  # fmt: skip
        self._draining = False
        self._changed = trio.Event()

    def adopt(self, config: Config, peer: Peer, needed: bool) -> None:
        """Take another configuration over. Links that are up stay as they are; the next dial goes to the new address,
        at once if one to the old address is under way or was to follow. Raises nothing.
        """
        self._config, self._needed, self.sessions.settings = config, needed, config.links
        self._dialler.adopt(config.links, peer)
        self._changed.set()

    # Dialling

    @property
    def peer(self) -> Peer:
        """The peer's configuration."""
        return self._dialler.peer

    @property
    def dialling(self) -> bool:
        """Whether a handshake is under way."""
        return self._dialler.busy

    @property
    def dials(self) -> int:
        """Handshakes made or tried by this side."""
        return self._dialler.dials

    @property
    def last_error(self) -> str | None:
        """Of the last dial that failed; None after one that did not."""
        return self._dialler.last_error

    @property
    def retry_at(self) -> float | None:
        """Time by trio's clock before which there is no next dial; None: no dial has failed since."""
        return self._dialler.retry_at

    # Streams

    def pick(self, service: str = "") -> Link | None:
        """The link for a new stream, which the caller opens at once, if any is up; asks for another one where that
        would be better.
        """
        links, usage = self.links, self.usage
        link: Link | None
        if not (
            len(links) == 1
            and (link := links[0]).carefree
            and (session := link.session).cleared > 0
            and len(session.streams) < CROWDED
            and not (session.bulk or usage.any_bulk)
        ):  # else it is the one that `_choose` would find, at a quarter of the price
            link = self._choose(service)
            if link is None:
                return None
        usage.avoided += 1
        if not self._serving:
            usage.warm += 1
        if self._opened_ahead is link:
            self._opened_ahead = None
            usage.ahead += not self._serving
        return link

    def _choose(self, service: str) -> Link | None:
        bulk = self.usage.any_bulk and self.usage.bulk(service, trio.current_time())
        link = choose(self.links, bulk)
        if (link is None or wants_more(link, bulk)) and self._should_dial(link, bulk):
            self._bulk_asked = bulk
            self._changed.set()
        return self._bulk.set_apart(link, self.links) if link is not None and bulk and not link.bulk else link

    def invite(self) -> None:
        """Have a link soon: this idle peer would be a better place for the next stream than one that is up."""
        self._invited = True
        self._changed.set()

    @property
    def limit(self) -> int:
        """Links that this pool may have."""
        return self._config.links.max_per_peer

    @property
    def idle(self) -> bool:
        """Whether there is no link because nothing used the last one, which has ended or is about to, or nothing has
        called the peer yet.
        """
        waits = self._needed or self.dialling or self.last_error is not None or self.sessions.suspended
        if not self.links and not waits:
            return True
        return self._unused or (self._taking == 0 and any(link.session.retiring for link in self.links))

    @property
    def up(self) -> bool:
        """Whether a link is up."""
        return any(link.usable for link in self.links)

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
        if len(self._waiters) >= self._config.limits.waiting_streams:
            return False
        self._waiters[waiter] = None
        self._learning.look()
        self._changed.set()
        return True

    def leave(self, waiter: Waiter) -> bool:
        """Take a stream off the waiting list; False: it is not there."""
        present = waiter in self._waiters
        self._waiters.pop(waiter, None)
        return present

    # Links

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial whenever the policy wants a link, until cancelled; links that were dialled end then."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._changed = trio.Event()
                until = self._look(trio.current_time())
                lost = self.sessions.to_dial()
                if lost is None and not (self._should_dial(choose(self.links)) or self._should_dial_for_bulk()):
                    with trio.CancelScope(deadline=until):
                        await self._changed.wait()
                elif self.retry_at is not None and trio.current_time() < self.retry_at:
                    with trio.CancelScope(deadline=self.retry_at):
                        await self._changed.wait()
                else:
                    await self._dial(nursery, lost)

    def _should_dial(self, best: Link | None, bulk: bool = False) -> bool:
        # A session that the peer dials for is reason to wait for it, until somebody needs a link before it comes.
        expected = not self.idle or self.usage.wanted(trio.current_time()).ahead
        needed = self._invited or (self._needed and expected and not self.sessions.count())
        if self._draining and not self._waiters:
            return False
        links = self._taking + self.sessions.count(dialled=True)
        standing = Standing(links, self.limit, needed, len(self._waiters), best, bulk)
        return should_dial(standing) and self._leaving < MOST_LEAVING

    def _should_dial_for_bulk(self) -> bool:
        return self._bulk_asked and self._should_dial(choose(self.links, True), True)

    @property
    def _taking(self) -> int:
        return sum(not link.leaving for link in self.links)

    @property
    def _leaving(self) -> int:
        return len(self.links) - self._taking

    def _look(self, now: float) -> float:
        """Close a link that is not wanted any more; returns when to look again."""
        wanted = self.usage.wanted(now)
        self._bulk.look(self.links, now)
        self._learning.look()
        # One at a time, so that no more than one of them can wait for a stream that crossed its GOAWAY.
        if not self._draining and not any(link.leaving for link in self.links):
            mine = [link for link in self.links if link.dialled and not link.streams]
            spare = [link for link in mine if self._taking > 1 and monotonic() - link.session.idle_since >= SPARE]
            if unwanted := spare or (mine if not wanted.link else []):
                unwanted[-1].retire()
        return min(wanted.until, now + LOOK if self.links else float("inf"))

    async def _dial(self, nursery: trio.Nursery, lost: LaneSession | None) -> None:
        """See `Dialler.dial`. `nursery` is the caller's own (it looks after the link)."""
        self._invited = self._bulk_asked = False
        ahead = self.usage.wanted(trio.current_time()).ahead and not self._waiters

        def join(shaken: Shaken, session: LaneSession | None) -> Link:
            return self._join(shaken.sock, shaken, True, ahead and not self._waiters, session)

        link = await self._dialler.dial(lost, join, lambda: self._draining and not self._waiters)
        if link is not None:
            nursery.start_soon(self._look_after, link)

    def resumes(self, hello: Hello) -> int | None:
        """See `links.accept.Home`. Sessions that are known go on while this host drains, too."""
        session = self.sessions.asked_untrusted(hello)
        return session.received if session else None

    def refuses(self) -> CloseReason | None:
        """Why one more link that the peer dialled is not welcome; None: it is."""
        if self._draining:
            return CloseReason.DRAINING
        if self._leaving >= MOST_LEAVING:
            return CloseReason.OVERLOADED
        links, dialling = self._taking + self.sessions.count(), self._dialler.busy and self._dialler.afresh
        welcome = admits(links=links, dialling=dialling, limit=self.limit, own=self._config.host, peer=self.name)
        return None if welcome else CloseReason.DUPLICATE

    def drain(self) -> None:
        """Take no new streams and no new links; streams that are open go on, and each link ends with its last one. For
        those that wait already a link is still dialled: their callers were told that they are connected.
        """
        self._draining = True
        if not self._waiters:
            self._dialler.give_up()
        for session in self.sessions:
            session.drain()
        self._pump.settle()

    def revive(self) -> None:
        """Take new streams and new links again after `drain`; links that are leaving still leave."""
        self._draining = False
        self._changed.set()

    def cut(self, revoked: Container[str]) -> None:
        """End the sessions whose peer showed one of these certificates, and their links."""
        for session in self.sessions:
            if (serial := self.sessions.link(session).serial) in revoked:
                session.stop(CloseReason.REVOKED, f"certificate {serial}")

    async def attend(self, sock: socket.socket, shaken: Shaken, dialled: bool) -> None:
        """Put a link to use and look after it until it ends. Takes `sock` over. Cancelled, it ends the link as
        STOPPED.
        """
        try:
            link = self._join(sock, shaken, dialled, False, self.sessions.waiting(shaken.hello))
        except HandshakeError as error:
            if self.sessions.lines.take(monotonic()):
                log.warning("link lost at once", peer=self.name, error=str(error))
        else:
            await self._look_after(link)

    def _join(
        self, sock: socket.socket, shaken: Shaken, dialled: bool, ahead: bool, session: LaneSession | None
    ) -> Link:
        """Add a link, opened `ahead` of an expected use or not, on which `session` goes on or a new one begins;
        `_look_after` must follow. Raises HandshakeError, and closes `sock`, if the peer has reset it, or its
        certificate has been revoked, meanwhile.
        """
        credentials = self._credentials()
        if credentials is not None and shaken.serial in credentials.revoked:  # since its TLS handshake
            sock.close()
            raise HandshakeError("the peer's certificate has been revoked", CloseReason.REVOKED)
        own = self._hello(self.name, shaken.hello.session)
        link = self.sessions.put(sock, shaken, session or self.sessions.begin(shaken.hello, own, dialled))
        self._dialler.joined()
        self.links.append(link)
        self._unused = False
        self.usage.link_up(trio.current_time())
        self._opened_ahead = link if ahead else None
        self._changed.set()
        if self.sessions.lines.take(monotonic()):
            tell_up(link, ahead)
        link.start(shaken.leftover)
        self._serve_waiters(dialled)
        if self._draining and not link.session.over:
            link.drain()
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
        self.links.remove(link)
        if link is self._opened_ahead:
            self._opened_ahead = None
        expected = link.reason in (CloseReason.STOPPED, CloseReason.IDLE)
        self._unused = link.reason is CloseReason.IDLE and not self._taking
        self._dialler.lost(link)
        if self.sessions.lines.take(monotonic()):
            tell_down(link, expected)
        self._changed.set()

    def _stream_ended(self) -> None:
        """Inside a turn, while others wait; it has not been told yet."""
        self._pump.at_end(self._serve_one)

    def _serve_one(self) -> None:
        """Of those that wait because the links are full, the first one gets the place of a stream that has ended."""
        if self._waiters and choose(self.links) is not None:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.link_up()

    def _serve_waiters(self, dialled: bool) -> None:
        waiters = list(self._waiters)
        self._waiters.clear()
        avoided = self.usage.avoided
        self._serving = True
        for waiter in waiters:
            waiter.link_up()
        self._serving = False
        if dialled and self.usage.avoided > avoided:
            self.usage.avoided -= 1  # the handshake that the first of them asked for
        self._pump.settle()
