"""Dialling one peer: one handshake at a time, what became of it, and the earliest time of the next one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from control.base.backoff import Backoff
from proxy.config.schema import LinksConfig, PeerConfig
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult, dial, hang_up, new_id
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello, Refused, resuming, without
from proxy.links.resumemark import is_instance
from proxy.pool.sessions import PoolSessions
from proxy.pool.usage import PoolUsage
from proxy.pump.link import Link
from proxy.pump.session import LaneSession

log = structlog.get_logger()

STABLE = 1.0
"""Seconds that a link must last for the backoff to begin anew; the loss of a younger one counts as a failed dial."""

Join = Callable[[HandshakeResult, LaneSession | None], Link]
"""Makes a link of a handshake, on which this session goes on; None: a new one begins. Raises HandshakeError."""


class Dialler:
    """Dials one peer for its pool, which sees to it that there is one dial at a time.

    Args:
        name, peer: the peer's host name and configuration; links: what is configured for links.
        hello, credentials: as those of `Pool`.
        usage: learns what a handshake costs; sessions: told what the peer has answered.
        device: what the dials are bound to.

    Attributes:
        busy: whether a handshake is under way; afresh: whether the latest one is, or was, for a new session.
        dials, last_error, retry_at: as those of `Pool`.
    """

    def __init__(
        self,
        name: str,
        peer: PeerConfig,
        links: LinksConfig,
        *,
        hello: Callable[[str, str], Hello],
        credentials: Callable[[], Credentials | None],
        backoff: Backoff,
        usage: PoolUsage,
        sessions: PoolSessions,
        device: LinkDevice,
    ) -> None:
        self.peer = peer
        self.busy = self.afresh = False
        self.dials = 0
        self.last_error: str | None = None
        self.retry_at: float | None = None
        self._name, self._links = name, links
        self._hello, self._credentials = hello, credentials
        self._backoff, self._usage, self._sessions, self.device = backoff, usage, sessions, device
        self._scope = trio.CancelScope()

    def adopt(self, links: LinksConfig, peer: PeerConfig) -> None:
        """Follow another configuration from now on. The next dial goes to the new address, at once if a dial to the old
        one is under way (it is given up) or was waiting for its backoff.
        """
        moved = peer.address != self.peer.address
        self.peer, self._links = peer, links
        if moved:
            self.retry_at = self.last_error = None
            self._backoff.reset()
            self._scope.cancel()

    def give_up(self) -> None:
        """Cancel the dial that is under way, unless it is for a session that has lost its link."""
        if self.afresh:
            self._scope.cancel()

    def hurry(self) -> None:
        """The next dial need not wait for a backoff: the peer is there, say, since it has dialled."""
        self.retry_at = None

    def lost(self, link: Link) -> None:
        """A link has ended. One that this side dialled and that did not last (`STABLE`) counts as a dial that failed,
        unless it was closed as idle. After any other the backoff begins anew: a peer that was about to stop has refused
        dials as long as the link was up, and its next process may be there by now.
        """
        if link.age > STABLE:
            self._backoff.reset()
            self.retry_at = None
        elif link.dialled and link.reason is not CloseReason.IDLE:
            self._postpone()

    async def dial(self, lost: LaneSession | None, join: Join, unwanted: Callable[[], bool]) -> Link | None:
        """Dial once, for the session `lost` or, if None, for a new one. Returns the link, which the caller looks after;
        None: the dial has failed, and `last_error` and `retry_at` say more, or was given up. Exception barrier of a
        link, as `links.accept` is for links that peers dial: whatever happens in it, the proxy goes on.

        Args:
            join: makes the link.
            unwanted: asked when the dial has timed out or was cancelled (`Dialler.give_up`): whether nobody needs a
                link for a new session any more. Then it has not failed.
        """
        hello = self._hello(self._name, lost.key if lost else new_id())
        if lost:
            hello = resuming(hello, lost.received, lost.instance if is_instance(lost.instance) else msgspec.UNSET)
        hello = without(hello, self._sessions.gone)
        self.afresh = not lost
        self.busy, self.retry_at = True, None
        said: list[bool] = []
        unheard = not lost
        began = trio.current_time()
        self.dials += 1
        seconds, peer = self._links.dial_timeout, self.peer
        try:
            with trio.fail_after(seconds) as self._scope:
                handshake = await dial(
                    peer.address,
                    device=self.device,
                    hello=hello,
                    credentials=self._credentials(),
                    says_hello=lambda: said.append(True),
                )
            took = trio.current_time() - began
            self._usage.dialled(took)
            self._sessions.told(hello)
            try:
                session = self._sessions.answered_untrusted(lost, handshake.hello)
            except HandshakeError as error:
                hang_up(handshake, error.reason)
                raise
            unheard = session is None
            link = join(handshake, session)
        except trio.TooSlowError:
            given_up = self.afresh and unwanted()
            if peer.address == self.peer.address and not given_up:
                self._failed(HandshakeError(f"no answer in {seconds:g} s", CloseReason.PEER_UNREACHABLE))
        except HandshakeError as error:
            if error.reason in (CloseReason.DUPLICATE, CloseReason.DRAINING):
                self._sessions.told(hello)  # the peer looks at what HELLO says before it looks for room
            if lost:
                self._sessions.refused(lost, error.reason)
            unheard = unheard and not isinstance(error, Refused)
            self._failed(error)
        except Exception:
            log.exception("unexpected error on a link", peer=self._name, address=peer.address.hostport)
            unheard = False  # nobody knows how far it came
            self.last_error = "unexpected error"
            self._sessions.peer_count.shaken("outbound", "failed")
            self._postpone()
        else:
            self.last_error = None
            self._sessions.peer_count.shaken("outbound", "ok", took)
            return link
        finally:
            self.busy = False
        if unheard and said:
            self._sessions.note_gone(hello.session, heard=False)
        return None

    def _failed(self, error: HandshakeError) -> None:
        self._sessions.peer_count.shaken("outbound", "failed")
        if error.reason is not CloseReason.DUPLICATE:
            level = log.debug if str(error) == self.last_error else log.warning
            level(
                "cannot reach peer",
                kind=(self._name, error.reason),
                peer=self._name,
                address=self.peer.address.hostport,
                error=str(error),
            )
            self.last_error = str(error)
        self._postpone()

    def _postpone(self) -> None:
        self.retry_at = trio.current_time() + self._backoff.next()
