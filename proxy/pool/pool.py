"""The pool: all sessions to one peer, whoever dialled them. It dials one link at a time, and streams wait for it,
within bounds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from proxy.config import Config, Peer
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import Shaken, dial, new_id
from proxy.links.credentials import Credentials
from proxy.links.handshake import Hello
from proxy.links.keepalive import keep_alive
from proxy.pool.backoff import Backoff
from proxy.pool.policy import Standing, admits, choose, crowded, should_dial
from proxy.pump.link import Calls, Link
from proxy.pump.loop import Pump

log = structlog.get_logger()

STABLE = 5.0
"""Seconds that a link must last before its loss counts as news and not as another failure (then the backoff starts
afresh)."""


class Waiter(Protocol):
    """A stream that waits for a link."""

    def link_up(self) -> None:
        """There is a link now. Called at most once, after the waiter was taken off the list."""


class Pool:
    """See the module's text.

    Args:
        name, peer: the peer's host name and configuration.
        needed: whether to keep a link although nobody waits (an upstream of this host uses the peer).
        hello: makes this host's HELLO for a dial or an answer, from (peer, session id).
        calls: delivers what the peer opens.
        credentials: those that a new handshake uses; None: no TLS (``security: none``).

    Attributes:
        links: those that are up; one that is going away (GOAWAY) stays until its streams are through.
        dials: handshakes made or tried by this side; last_error: of the last dial that failed, None after one that did
            not; retry_at: time by trio's clock before which there is no next dial, None: no dial has failed since.
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
    ) -> None:
        self.name, self.peer = name, peer
        self.links: list[Link] = []
        self.dialling = False
        self.dials = 0
        self._links_made = 0
        self.last_error: str | None = None
        self.retry_at: float | None = None
        self._config = config
        self._pump = pump
        self._needed = needed
        self._hello = hello
        self._calls = calls
        self._backoff = backoff
        self._credentials = credentials
        self._waiters: dict[Waiter, None] = {}
        self._draining = False
        self._changed = trio.Event()

    # Streams

    def pick(self) -> Link | None:
        """The link for a new stream, if any is up; asks for another one where the best is crowded."""
        link = choose(self.links)
        if (link is None or crowded(link)) and self._should_dial(link):
            self._changed.set()
        return link

    @property
    def limit(self) -> int:
        """Links that this pool may have."""
        return self._config.links.max_per_peer

    @property
    def up(self) -> bool:
        """Whether a link is up."""
        return any(link.usable for link in self.links)

    @property
    def streams(self) -> int:
        """Streams on all links."""
        return sum(link.streams for link in self.links)

    @property
    def waiting(self) -> int:
        """Streams that wait for a link."""
        return len(self._waiters)

    def wait(self, waiter: Waiter) -> bool:
        """Put a stream on the waiting list, which asks for a dial; False: the list is full."""
        if len(self._waiters) >= self._config.limits.waiting_streams:
            return False
        self._waiters[waiter] = None
        self._changed.set()
        return True

    def leave(self, waiter: Waiter) -> None:
        """Take a stream off the waiting list. Idempotent."""
        self._waiters.pop(waiter, None)

    # Links

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial whenever the policy wants a link, until cancelled; links that were dialled end then."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._changed = trio.Event()
                if not self._should_dial(choose(self.links)):
                    await self._changed.wait()
                elif self.retry_at is not None and trio.current_time() < self.retry_at:
                    await trio.sleep_until(self.retry_at)
                else:
                    await self._dial(nursery)

    def _should_dial(self, best: Link | None) -> bool:
        standing = Standing(len(self.links), self.limit, self._needed, len(self._waiters), best)
        return should_dial(standing) and not self._draining

    async def _dial(self, nursery: trio.Nursery) -> None:
        """Dial once. `nursery` is the caller's own (it looks after the link)."""
        hello = self._hello(self.name, new_id())
        listen = self._config.links.listen.host
        self.dialling, self.retry_at = True, None
        self.dials += 1
        seconds = self._config.links.dial_timeout
        try:
            with trio.fail_after(seconds):
                shaken = await dial(
                    self.peer.address,
                    source=None if _is_wildcard(listen) else listen,
                    hello=hello,
                    credentials=self._credentials(),
                )
            link = self._join(shaken.sock, shaken, True)
        except trio.TooSlowError:
            self._failed(HandshakeError(f"no answer in {seconds:g} s", CloseReason.PEER_UNREACHABLE))
        except HandshakeError as error:
            self._failed(error)
        else:
            self.last_error = None
            nursery.start_soon(self._look_after, link)
        finally:
            self.dialling = False

    def _failed(self, error: HandshakeError) -> None:
        if error.reason is not CloseReason.DUPLICATE:
            level = log.debug if str(error) == self.last_error else log.warning
            level("cannot reach peer", peer=self.name, address=self.peer.address.hostport, error=str(error))
            self.last_error = str(error)
        self._postpone()

    def _postpone(self) -> None:
        self.retry_at = trio.current_time() + self._backoff.next()

    def refuses(self) -> CloseReason | None:
        """Why one more link that the peer dialled is not welcome; None: it is."""
        if self._draining:
            return CloseReason.DRAINING
        welcome = admits(
            links=len(self.links), dialling=self.dialling, limit=self.limit, own=self._config.host, peer=self.name
        )
        return None if welcome else CloseReason.DUPLICATE

    def drain(self) -> None:
        """Take no new streams and no new links; streams that are open go on."""
        self._draining = True
        for link in self.links:
            link.drain()

    async def attend(self, sock: socket.socket, shaken: Shaken, dialled: bool) -> None:
        """Put a link to use and look after it until it ends. Takes `sock` over. Cancelled, it ends the link as
        STOPPED.
        """
        try:
            link = self._join(sock, shaken, dialled)
        except HandshakeError as error:
            log.warning("link lost at once", peer=self.name, error=str(error))
        else:
            await self._look_after(link)

    def _join(self, sock: socket.socket, shaken: Shaken, dialled: bool) -> Link:
        """Add a link; `_look_after` must follow. Raises HandshakeError, and closes `sock`, if the peer has reset it
        meanwhile.
        """
        own = self._hello(self.name, shaken.hello.session)
        try:
            link = Link(
                self._pump,
                sock,
                name=f"{self.name}/{self._links_made + 1}",
                peer=self.name,
                dialled=dialled,
                local=own.settings,
                remote=shaken.hello.settings,
                replay=self._config.links.replay_buffer,
                calls=self._calls,
                wire=shaken.wire,
            )
        except OSError as error:
            sock.close()
            raise HandshakeError(error.strerror or str(error), CloseReason.LINK_LOST) from None
        self._links_made += 1
        self.retry_at = None
        self.links.append(link)
        log.info(
            "link up",
            link=link.name,
            peer=self.name,
            dialled=dialled,
            local=link.local_address,
            remote=link.remote_address,
        )
        link.start(shaken.leftover)
        self._serve_waiters()
        return link

    async def _look_after(self, link: Link) -> None:
        try:
            await keep_alive(link, self._config.links.ping_interval, self._config.links.ping_timeout)
        finally:
            link.doom(CloseReason.STOPPED)
            self._pump.settle()
            self._lost(link)

    def _lost(self, link: Link) -> None:
        self.links.remove(link)
        if link.age > STABLE:
            self._backoff.reset()
        elif link.dialled:
            self._postpone()
        level = log.info if link.reason is CloseReason.STOPPED else log.warning
        level(
            "link down",
            link=link.name,
            peer=self.name,
            reason=link.reason.label,
            detail=link.detail,
            streams=link.lost_streams,
            age_s=round(link.age, 1),
        )
        self._changed.set()

    def _serve_waiters(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.link_up()
        self._pump.settle()


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")
