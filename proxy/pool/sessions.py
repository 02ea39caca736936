"""The sessions of a pool, by id: which of them wait for another link, and how they get it or end.

Only the side that dialled a session dials for it again. The other side recognises it by its id, by the peer's name,
which the handshake has proved, and by the peer's process (``instance``): another process of the peer does not have its
streams.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from time import monotonic

import trio

from control.base.reading.addresses import TcpAddress, without_scope
from proxy.config.schema import LinksConfig
from proxy.errors import CloseReason, HandshakeError, ProtocolError
from proxy.links.carry import HandshakeResult
from proxy.links.handshake import Hello
from proxy.pool.linklog import log_session_over
from proxy.pool.peercounts import PeerCount
from proxy.pool.refusals import RefusalRun
from proxy.pool.suspendedbytes import SuspendedBytes
from proxy.pump.carrier import UsageObserver
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.session import CallHandler, LaneSession
from proxy.pump.turnshare import TurnShare

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_GONE = 64
"""Ids of sessions that this side has given up, kept until the peer has been told: as many as fit a HELLO."""


class PoolSessions:
    """The sessions of one pool that are not over, and the link that carries each.

    Args:
        peer: the peer's host name; links: what is configured for links; leaving: called when the peer takes no more
            streams on one of the sessions; kept: counts what sessions keep while they have no link; the others are as
            in `LaneSession`.

    Attributes:
        peer_count: what is counted of the peer for good.
        settings: what is configured for links; may be replaced. resumed: how often a session has gone on over another
            link.
        gone: ids of sessions that this side dialled and does not have, though the peer may: those that it gave up while
            they had no link, and those that never began here (False), since the peer's answer was lost. The peer waits
            for them, and counts them as links, until a HELLO tells it; they are kept until it has answered one.
        untold: whether no HELLO has told of some of them yet.
        unbegun: ids of sessions that the peer dialled and that it may have, but that never began here, since the
            connection was lost right behind the answer.
    """

    def __init__(
        self,
        peer: str,
        links: LinksConfig,
        *,
        pump: Pump,
        calls: CallHandler,
        usage: UsageObserver,
        leaving: Callable[[], None],
        kept: SuspendedBytes,
        peer_count: PeerCount | None = None,
    ) -> None:
        self.peer_count = peer_count or PeerCount()
        self.resumed = self._made = 0
        self.settings = links
        self.peer = peer
        self._pump, self._calls, self._usage, self._leaving, self._kept = pump, calls, usage, leaving, kept
        self._turn_share = TurnShare(pump)
        self._all: dict[str, LaneSession] = {}
        self._links: dict[str, Link] = {}
        self.gone: dict[str, bool] = {}
        self.untold = False
        self.unbegun: dict[str, None] = {}
        self._one_waits = trio.Event()

    def __iter__(self) -> Iterator[LaneSession]:
        """The sessions that are not over."""
        return (session for session in list(self._all.values()) if not session.over)

    def begin(self, theirs: Hello, own: Hello, dialled: bool) -> LaneSession:
        """Make a session, which `put` is to add; `theirs` and `own` are the HELLOs of the handshake."""
        self._made += 1
        session = LaneSession(
            self._pump,
            key=theirs.session,
            instance=theirs.instance,
            name=f"{self.peer}/{self._made}",
            peer=self.peer,
            dialled=dialled,
            survives=True,
            local=own.settings,
            remote=theirs.settings,
            replay=self.settings.replay_buffer,
            calls=self._calls,
            usage=self._usage,
            observer=self,
        )
        session.turn_share = self._turn_share
        return session

    # What becomes of a session (`SessionObserver`)

    def session_left(self) -> None:
        """Another one may be dialled."""
        self._leaving()

    def session_keeps(self, session: LaneSession) -> None:
        """Count what it keeps."""
        self._kept.count(session)

    def session_carried(self, session: LaneSession) -> None:
        """It keeps nothing that is counted any more."""
        self._kept.drop(session)

    def session_over(self, session: LaneSession) -> None:
        """Count what it has done."""
        self._kept.drop(session)
        self.peer_count.session_over(session)

    def put(self, sock: socket.socket, handshake: HandshakeResult, session: LaneSession) -> Link:
        """Make a link, not yet started, of `sock`, for a session that is new or suspended; when the link has ended, the
        caller awaits `outlive`. Raises HandshakeError, and closes `sock`, if the peer has reset it since the handshake.
        """
        try:
            link = Link(self._pump, sock, session, wire=handshake.wire)
        except OSError as error:
            sock.close()
            if not session.suspended:
                session.end(CloseReason.LINK_LOST)
            raise HandshakeError(error.strerror or str(error), CloseReason.LINK_LOST) from None
        link.serial = handshake.serial
        self.add(session)
        self._links[session.key] = link
        return link

    def add(self, session: LaneSession) -> None:
        """Add a session that is about to have a link, its first or another one."""
        self._all[session.key] = session
        self.unbegun.pop(session.key, None)
        self.resumed += session.suspended
        self.peer_count.resumed += session.suspended

    def link(self, session: LaneSession) -> Link:
        """The link that carries a session, or did last."""
        return self._links[session.key]

    @property
    def suspended(self) -> list[LaneSession]:
        """The sessions that have lost their link and wait for another one."""
        return [session for session in self if session.suspended]

    def count(self, *, dialled: bool | None = None) -> int:
        """How many sessions wait for another link and will take streams again; `dialled`: only those that this side
        dialled (True) or accepted (False).
        """
        return sum(
            session.suspended and not session.expendable and dialled in (None, session.dialled) for session in self
        )

    # The side that dials

    def to_dial(self) -> LaneSession | None:
        """Of the suspended sessions that this side dials for, the one that has waited longest."""
        return min((each for each in self.suspended if each.dialled), key=lambda each: each.lost_at, default=None)

    def answered_untrusted(self, session: LaneSession | None, hello: Hello) -> LaneSession | None:
        """The peer has answered a dial with `hello`. Returns `session`, which was dialled for, ready to go on over the
        new link; None: a new session begins, since the dial was for one, or since the peer does not know `session` any
        more, which has then been ended. Raises HandshakeError if `session` has ended meanwhile or cannot go on.
        """
        self._end_gone(hello)
        if session and session.over:
            raise HandshakeError("the session has ended meanwhile", session.reason)
        if session and hello.session in (hello.unheard or ()):
            self._unheard(session)
        elif session and not hello.resumes:
            self._unknown(session, hello.instance)
        if not session or session.over:
            self._met(hello)
            return None
        if hello.instance != session.instance:
            self._broken(session, "the peer goes on with a session of another process")
        self._rewind_untrusted(session, hello.received)
        return session

    def told(self, hello: Hello) -> None:
        """The peer has answered this HELLO of ours, so it knows which sessions this side does not have: forget them."""
        for key in (*(hello.gone or ()), *(hello.unheard or ())):
            self.gone.pop(key, None)
        self.untold = bool(self.gone)

    def refused(self, session: LaneSession, reason: CloseReason) -> None:
        """The peer has refused the dial for `session`. As one link too many, or because it drains, it refuses only a
        session that it does not know: then `session` ends.
        """
        if reason in (CloseReason.DUPLICATE, CloseReason.DRAINING):
            self._unknown(session)

    def _unknown(self, session: LaneSession, instance: str | None = None) -> None:
        """The peer has no such session any more: end it. `instance`: the peer's process, if known; if it is still the
        one that had the session, it has given it up, else it has restarted.
        """
        if instance == session.instance:
            session.end(CloseReason.RESUME_TIMEOUT, "the peer has given it up")
        else:
            session.end(CloseReason.PEER_RESTARTED, "the peer does not know it")
        self._pump.settle()

    # The side that was dialled

    def asked_untrusted(self, hello: Hello) -> LaneSession | None:
        """The session that the peer, by the HELLO of its dial, wants to go on with, ready for the new link; None: it
        wants a new one, or there is no such session any more. Raises HandshakeError if the HELLO contradicts the
        session, which no correct peer's does.
        """
        self._end_gone(hello)
        session = self.waiting(hello)
        if session is not None and not session.received and hello.received > session.out.sent:
            # It means one with an earlier process of this host. This one has begun under the same id with an answer
            # that was lost.
            self._unheard(session)
            session = None
        if session is not None:
            if not session.suspended:
                # The peer has noticed before this side that the old link is dead.
                session.link.doom(CloseReason.LINK_LOST, "the peer goes on over another link")
                self._pump.settle()
            self._rewind_untrusted(session, hello.received)
        elif (known := self._all.get(hello.session)) is not None and not known.over:
            raise HandshakeError("a HELLO with the id of another session")
        elif not hello.resumes:
            self._met(hello)
        return session

    def _end_gone(self, hello: Hello) -> None:
        """End the sessions that the peer has dialled, and does not have (any more), as its HELLO says."""
        for key in (*(hello.gone or ()), *(hello.unheard or ())):
            session = self._all.get(key)
            if session is None or session.over or session.dialled or session.instance != hello.instance:
                continue
            if key in (hello.gone or ()):
                session.stop(CloseReason.RESUME_TIMEOUT, "the peer has given it up")
                continue
            self._unheard(session)
        self._pump.settle()

    def waiting(self, hello: Hello) -> LaneSession | None:
        """The session that the peer's HELLO asks to go on with, if it was dialled by that very process of the peer."""
        session = self._all.get(hello.session) if hello.resumes else None
        if session is None or session.over or session.dialled or session.instance != hello.instance:
            return None
        return session

    # Both

    def _rewind_untrusted(self, session: LaneSession, received: int) -> None:
        try:
            session.resume(received)
        except ProtocolError as error:
            self._broken(session, str(error))

    def _unheard(self, session: LaneSession) -> None:
        """The peer has never heard of the session, and its link, if it still seems to be up, is dead."""
        session.unheard = True
        session.stop(CloseReason.LINK_LOST, "the peer has never heard of it")
        self._pump.settle()  # a link that was up has left the session behind
        session.end(CloseReason.LINK_LOST, "the peer has never heard of it")
        self._pump.settle()

    def _broken(self, session: LaneSession, why: str) -> None:
        session.end(CloseReason.PROTOCOL_ERROR, why)
        self._pump.settle()
        raise HandshakeError(why, CloseReason.PROTOCOL_ERROR)

    def _met(self, hello: Hello) -> None:
        """A new session with the process of this HELLO begins. An earlier process has ended then, and its sessions,
        which wait for a link in vain, are ended; but not those of which it has said that it leaves (GOAWAY), since then
        the two processes may run side by side for a while, nor those of processes that do, as HELLO says.
        """
        alive = (hello.instance, *(hello.beside or ()))
        for session in self.suspended:
            if session.instance not in alive and not session.peer_leaves:
                self._unknown(session)

    async def outlive(self, session: LaneSession) -> None:
        """The link of `session` has ended. Returns when the session has another link or is over. It ends here when the
        peer has acknowledged nothing for links.resume_timeout, or, if this is cancelled, at once as STOPPED.
        """
        # It may have been ended already, in the time that its link's task took to hear of the loss.
        if session.suspended or session.ended_alone:
            self._one_waits.set()
            self._bound_expendable()
            resumed = session.resumed
            await self._wait(session)
            # Not if a peer that did not know it has begun a new session under the same id.
            ours = session.dialled and self._all.get(session.key) is session
            if session.over and session.resumed == resumed and ours:
                self.note_gone(session.key, heard=session.received > 0)
            # If it has had another link since, `log_link_down` of that one says how it ended.
            if session.over and session.resumed == resumed:
                log_session_over(session)
        if session.over and self._all.get(session.key) is session:
            del self._all[session.key]
            self._links.pop(session.key, None)

    async def until_one_waits(self) -> None:
        """Return when a session waits for a link."""
        while not self.suspended:
            self._one_waits = trio.Event()
            await self._one_waits.wait()

    def refused_by(self, address: TcpAddress, run: RefusalRun) -> None:
        """Connections to the peer's listening address have been refused for that long by now: end the sessions that
        have been without a link for as much of it as links.refused_timeout. A session that the peer dialled only if it
        came from there: a peer behind a translated address, say, cannot be asked.
        """
        timeout = self.settings.refused_timeout
        for session in self.suspended:
            if run.lasted(session.lost_at) >= timeout and (session.dialled or self._came_from(session, address)):
                session.end(CloseReason.PEER_GONE, f"{address.hostport} has refused connections for {timeout:g} s")
        self._pump.settle()

    def _came_from(self, session: LaneSession, address: TcpAddress) -> bool:
        """Whether the last link of a session came from that host; a name is taken for the peer's."""
        try:
            return ipaddress.ip_address(without_scope(address.host)) == ip_of(self._links[session.key].remote_address)
        except ValueError:
            return True

    def note_gone(self, key: str, *, heard: bool) -> None:
        """The peer may have this session and is to be told that this side does not; `heard`: whether it ever did. Where
        a new session under the id of a lost one never began here, only that one is left at the peer.
        """
        self.gone[key], self.untold = heard and self.gone.get(key, True), True
        if len(self.gone) > MOST_GONE:
            del self.gone[next(iter(self.gone))]

    def note_unbegun(self, key: str) -> None:
        """This side has answered a dial, and then could not make the link."""
        self.unbegun[key] = None
        if len(self.unbegun) > MOST_GONE:
            del self.unbegun[next(iter(self.unbegun))]

    def absent(self, hello: Hello) -> dict[str, bool]:
        """What the answer to a dial says of sessions that this side does not have (`links.handshake.without`)."""
        return {**self.gone, **({hello.session: False} if hello.session in self.unbegun else {})}

    def _bound_expendable(self) -> None:
        """End the oldest expendable sessions that wait for a link, beyond links.max_per_peer of them, those without
        streams first. They do not count towards the limit of links, so without a bound of their own a peer that makes
        and leaves them all the time would fill our memory.
        """
        expendable = [each for each in self.suspended if each.expendable]
        expendable.sort(key=lambda each: (len(each.streams) > 0, each.lost_at))
        for session in expendable[: -self.settings.max_per_peer]:
            session.end(CloseReason.LINK_LOST, "more sessions that take no streams wait for a link than may have one")
        self._pump.settle()

    async def _wait(self, session: LaneSession) -> None:
        why, detail, awake = CloseReason.STOPPED, "", session.awake
        patience = self.settings.resume_timeout
        try:
            with trio.move_on_after(max(0.0, session.stalled_since + patience - monotonic())):
                await awake.wait()
            why, detail = CloseReason.RESUME_TIMEOUT, f"no link for {patience:g} s on which anything was acknowledged"
            if session.fruitless:
                detail += f", but {session.fruitless} came up: do large packets get through? (hostlane check)"
        finally:
            if not awake.is_set():
                session.end(why, detail)
                self._pump.settle()


def ip_of(address: str) -> IpAddress:
    """The IP address in `Link.local_address` or `remote_address`: of an IPv4 connection on a socket for both families
    the IPv4 address, of one that is only valid on an interface that address alone.
    """
    found = ipaddress.ip_address(without_scope(address.rpartition(":")[0].strip("[]")))
    return (isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found
