"""Accepting links from peers: which dialler may have one, and which reason the others are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast

import structlog
import trio

from control.base.tokenbucket import TokenBucket
from proxy.errors import CloseReason, HandshakeError
from proxy.links.acceptgate import AcceptGate, serve_gated
from proxy.links.carry import (
    HandshakeResult,
    NothingSaid,
    Stream,
    answer,
    hear,
    listen_to,
    meant_for,
    protected,
    refuse,
    serial_of,
    wire_of,
)
from proxy.links.credentials import Credentials
from proxy.links.handshake import Hello, check_names, resuming, without
from proxy.links.handshakelimiter import HandshakeLimiter, NoPlace
from proxy.links.passing import EarlierProcesses, NoEarlierProcess, PassedLinks

log = structlog.get_logger()

HANDSHAKES = 128
HANDSHAKES_PER_SOURCE = 64
"""Most handshakes under way at a time, in all and from one address: strangers can hold no more sockets than this, each
for dial_timeout. (A proxy dials one link to a peer at a time.) As many again may be on their way out."""
LINES_PER_SECOND = 10
LINES_AT_ONCE = 100
"""Rate and burst of debug lines about connections on which nothing is said."""


class AcceptingPool(Protocol):
    """The pool that a link from a peer belongs to."""

    def absent(self, hello: Hello) -> Mapping[str, bool]:
        """The sessions of which the answer to the peer's HELLO says that this host does not have them
        (`links.handshake.without`).
        """

    def resumes(self, hello: Hello) -> int | None:
        """Look up the session that the peer's HELLO asks to resume, and keep it for this link. Returns the bytes
        received in it so far; None if the HELLO does not resume one. Raises HandshakeError.
        """

    def refuses(self) -> CloseReason | None:
        """Why one more link is refused; None if it is accepted."""


async def serve(
    listeners: list[trio.SocketListener],
    *,
    own: str,
    patience: Callable[[], float],
    find: Callable[[str], AcceptingPool | None],
    expected: Callable[[str], bool],
    hello: Callable[[str, str], Hello],
    attend: Callable[[AcceptingPool, HandshakeResult], Awaitable[None]],
    credentials: Callable[[], Credentials | None] = lambda: None,
    gate: AcceptGate | None = None,
    earlier: EarlierProcesses = NoEarlierProcess(),  # noqa: B008 - it cannot change
    passed: PassedLinks | None = None,
    refused: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept links until cancelled; the listeners are closed then, and `attend` is cancelled.

    Args:
        patience: returns the seconds that a handshake may take; called for each.
        find: returns the pool of a peer by its name, None for a stranger.
        expected: whether a peer is known to be at this IP address, whose handshakes go before others.
        hello: makes this host's answer from (peer, session id).
        attend: takes the link into the pool before its first checkpoint, and returns when the link has ended. It owns
            the socket from the start.
        credentials: returns those that a new handshake uses; None: no TLS (``security: none``).
        gate: stops accepting while it is closed.
        earlier: the processes that get the connections which are meant for them.
        passed: connections that come from a later process; they are accepted like those of the listeners, and whatever
            the gate says.
        refused: called for each handshake that fails.
    """
    limiter = HandshakeLimiter(HANDSHAKES, HANDSHAKES_PER_SOURCE)
    turned_away = HandshakeLimiter(HANDSHAKES, HANDSHAKES_PER_SOURCE)
    probes = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)

    async def handle(tcp: trio.SocketStream, *, was_passed: bool = False) -> None:
        """The exception barrier of a link: no error on one connection ends the server."""
        remote, stream = "unknown", cast(Stream, tcp)
        try:
            try:
                remote = str(tcp.socket.getpeername()[0])
            except OSError:  # reset since: whoever it was has said nothing
                raise NothingSaid from None
            stream = protected(tcp, credentials(), dialling=False)
            accepted = None
            with trio.move_on_after(patience()) as scope:
                try:
                    with limiter.take(
                        remote, scope.cancel, trio.current_time(), expected=expected(remote)
                    ) as place:
                        await hear(tcp)
                        place.heard = True
                        if not was_passed and await _pass_on(tcp, remote, earlier):
                            return
                        accepted = await _shake(stream, own, find, hello)
                except NoPlace:
                    # Whoever only looks whether the port is open is not refused: nothing was wanted. And a GOAWAY in
                    # front of an unread HELLO might be lost with it, as closing then resets the connection.
                    with turned_away.take(remote, scope.cancel, trio.current_time()):
                        await hear(tcp)
                    raise
            if accepted is not None:
                await attend(*accepted)
        except NothingSaid:
            if probes.take(trio.current_time()):
                log.debug("connection to links.listen without a byte", remote=remote)
        except HandshakeError as error:
            refused()
            reason, kind = error.reason.label, (remote, error.reason)
            log.warning("link refused", kind=kind, remote=remote, reason=reason, error=str(error))
            with trio.move_on_after(patience()):
                await refuse(stream, error.reason)
        except OSError as error:
            refused()
            log.warning("link refused", kind=(remote,), remote=remote, error=str(error))
        except Exception:
            log.exception("unexpected error on a link", remote=remote)

    async def handle_passed(tcp: trio.SocketStream) -> None:
        try:
            await handle(tcp, was_passed=True)
        finally:
            await trio.aclose_forcefully(tcp)

    async def serve_passed(passed: PassedLinks) -> None:
        async with trio.open_nursery() as handlers:
            while True:
                sock = trio.socket.from_stdlib_socket(await passed.take())
                handlers.start_soon(handle_passed, trio.SocketStream(sock))

    try:
        async with trio.open_nursery() as nursery:
            if passed is not None:
                nursery.start_soon(serve_passed, passed)
            await serve_gated(gate or AcceptGate(), handle, listeners, "links.listen", task_status=task_status)
    finally:
        for each in listeners:
            each.socket.close()


async def _pass_on(tcp: trio.SocketStream, remote: str, earlier: EarlierProcesses) -> bool:
    """Pass the connection on to the process for which it is meant, if there is another one. Raises HandshakeError."""
    if not earlier.instances or not (meant := await meant_for(tcp)) or not earlier.pass_on(meant, tcp.socket):
        return False
    log.info("link passed on", kind=(remote,), remote=remote, instance=meant)
    return True


async def _shake(
    stream: Stream, own: str, find: Callable[[str], AcceptingPool | None], hello: Callable[[str, str], Hello]
) -> tuple[AcceptingPool, HandshakeResult]:
    theirs, leftover = await listen_to(stream)
    check_names(theirs, own=own, peer=None)
    pool = find(theirs.host)
    if pool is None:
        raise HandshakeError(f"host {theirs.host!r} is not in peers", CloseReason.WRONG_HOST)
    # No checkpoint between this and the link's entry into its pool, or several dials could all get the last place.
    ours, received = hello(theirs.host, theirs.session), pool.resumes(theirs)
    if received is not None:
        ours = resuming(ours, received)
    elif (reason := pool.refuses()) is not None:
        raise HandshakeError(f"host {theirs.host!r} dialled: {reason.label}", reason)
    sock = answer(stream, without(ours, pool.absent(theirs)))
    return pool, HandshakeResult(sock, theirs, leftover, wire_of(stream), serial_of(stream))
