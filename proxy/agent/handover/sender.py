"""The old side: hands its listening sockets over to a process that connects for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import structlog
import trio

from control.base.reading.addresses import HANDOVER_SOCKET
from control.base.system.commanders import Commanders
from control.base.system.peercred import credentials_of
from control.base.tokenbucket import TokenBucket
from proxy.agent.handover.protocol import (
    VERSION,
    HandoverDescriptors,
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverState,
    HandoverStep,
    expect,
    last_word,
    say,
    send,
)
from proxy.links.acceptgate import AcceptGate, serve_gated
from proxy.mesh.statelock import StateLock
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

GETTING_READY = 120.0
"""Seconds that the new process may take to get ready: its interfaces may need a while to come up (up_timeout)."""
ANSWER = 5.0
"""Seconds that it may then take for one message; meanwhile neither process accepts connections."""


LINES_PER_SECOND, LINES_AT_ONCE = 1 / 60, 5
"""Log lines about processes that may not take over."""

TOO_SLOW = "the other process takes too long"


class OfferedListener(NamedTuple):
    """A listening socket, and what it is for (proxy/agent/handover/inheritance.py)."""

    kind: str
    address: str
    inheritable: InheritableListener


class HandoverSource(Protocol):
    """The proxy that hands its sockets over."""

    @property
    def host(self) -> str:
        """The name of its host."""

    @property
    def state(self) -> StateLock | None:
        """The lock of its state_dir, if it has one."""

    def reserve(self) -> str | None:
        """Begin a handover. Returns why none can begin now; None: it has begun, and the set of listening sockets does
        not change until `resume` or `retire`.
        """

    def sockets(self) -> Iterable[OfferedListener]:
        """All its listening sockets."""

    def pause(self, pid: int) -> str | None:
        """Stop accepting, since process `pid` is about to accept instead. Returns why it cannot be taken over any more,
        having done nothing; None: it has stopped.
        """

    def resume(self) -> None:
        """The other process does not take over: go on as before. Called whether `pause` was called or not."""

    def retire(self, seconds: float) -> None:
        """The other process has taken over: close the sockets, and end when all streams have finished, after `seconds`
        at the latest.
        """


async def hand_over(sock: trio.SocketStream, source: HandoverSource) -> None:
    """Hand all sockets over to the process at the other end, which may have them, or none. An error is logged, and the
    proxy goes on.

    Closes `sock`. Unless the sockets were handed over it sends *no* before: so when the other process sees the
    connection closed without a *no*, it knows that this one has ended and has the sockets no more.
    """
    pid, why = 0, "the process that has them is ending"
    try:
        pid = credentials_of(sock.socket).pid
        if (refusal := source.reserve()) is not None:
            raise HandoverError(refusal)
        try:
            sockets = await _prepare(sock, source)
            if (refusal := source.pause(pid)) is not None:
                raise HandoverError(refusal)
        except BaseException:
            source.resume()
            raise
        await _yield(sock, source, sockets, pid)
    except HandoverError as error:
        why = str(error)
        log.warning("proxy not handed over", pid=pid, error=why)
    finally:
        say(sock, HandoverStep(word="no", why=why))  # does nothing after a handover: `sock` is closed by then
        sock.socket.close()


async def _prepare(sock: trio.SocketStream, source: HandoverSource) -> list[OfferedListener]:
    """Tell the names of the sockets, and wait until the other process is ready. Raises HandoverError."""
    sockets = list(source.sockets())
    try:
        with trio.fail_after(GETTING_READY):
            lock, count = None if source.state is None else source.state.identity, len(sockets)
            await send(
                sock, HandoverOffer(version=VERSION, host=source.host, pid=os.getpid(), sockets=count, lock=lock)
            )
            for offered in sockets:
                await send(sock, _described(offered))
            await expect(sock, "ready")
    except trio.TooSlowError:
        raise HandoverError(TOO_SLOW) from None
    return sockets


async def _yield(
    sock: trio.SocketStream, source: HandoverSource, sockets: Iterable[OfferedListener], pid: int
) -> None:
    """After `pause`: send the descriptors, and `retire` if the other process then answers *taken*, else `resume`. The
    answer counts if it has arrived when `last_word` is called: a timeout, a cancellation or the end of that process
    cannot leave it unclear. Raises HandoverError if the sockets are kept.
    """
    answer: HandoverStep | None = None
    sent = False
    try:
        with trio.move_on_after(ANSWER) as patience:
            await send(sock, HandoverStep(word="yours"))
            await _send_state(sock, source.state)
            for offered in sockets:
                await _send(sock, offered)
            sent = True
            await trio.lowlevel.wait_readable(sock.socket)
    finally:
        answer = last_word(sock) if sent else None
        if answer is not None and answer.word == "taken":
            sock.socket.close()
            log.info("proxy handed over", pid=pid)
            source.retire(answer.seconds)
        else:
            source.resume()
    if answer is None:
        raise HandoverError(TOO_SLOW if patience.cancelled_caught else "the other process is gone, or makes no sense")
    if answer.word != "taken":
        raise HandoverError(answer.why or f"the other process does not say 'taken', but {answer}")


def _described(offered: OfferedListener) -> HandoverSocket:
    sock, lock, birth, mode, owner, group, kept = offered.inheritable
    return HandoverSocket(
        kind=offered.kind,
        address=offered.address,
        family=sock.family,
        lock=lock is not None,
        birth=birth,
        mode=mode,
        owner=owner,
        group=group,
        kept=kept,
    )


async def _send_state(sock: trio.SocketStream, state: StateLock | None) -> None:
    with ExitStack() as files:
        lock = None if state is None else state.descriptor
        message = HandoverState(secret="" if state is None else state.secret)
        await send(sock, message, [] if lock is None else [_duplicate(lock, files)])


async def _send(sock: trio.SocketStream, offered: OfferedListener) -> None:
    with ExitStack() as files:
        message = HandoverDescriptors(kind=offered.kind, address=offered.address)
        await send(sock, message, _duplicates(offered.inheritable, files))


def _duplicates(inheritable: InheritableListener, files: ExitStack) -> list[int]:
    """Duplicates of the socket's descriptor and its lock's; `files` closes them. The proxy may be told to stop before
    they are sent, and close its own: the same numbers could then be those of other sockets.
    """
    if inheritable.sock.fileno() < 0:  # closed, and the lock with it
        raise HandoverError("it is about to stop")
    descriptors = (inheritable.sock.fileno(), inheritable.lock)
    return [_duplicate(descriptor, files) for descriptor in descriptors if descriptor is not None]


def _duplicate(descriptor: int, files: ExitStack) -> int:
    try:
        found = os.dup(descriptor)
    except OSError as error:
        raise HandoverError(f"duplicating a descriptor: {error.strerror}") from None
    files.callback(os.close, found)
    return found


async def serve(
    listeners: list[trio.SocketListener], source: HandoverSource, gate: AcceptGate, commanders: Commanders
) -> None:
    """Hand over to whichever process connects and is one of `commanders`, until cancelled. Others are told why not.
    The caller closes the listeners.
    """
    lines = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)

    async def handle(sock: trio.SocketStream) -> None:
        if (why := commanders.refusal(sock.socket)) is None:
            await hand_over(sock, source)
            return
        if lines.take(trio.current_time()):
            log.warning("proxy not handed over", error=why)
        say(sock, HandoverStep(word="no", why=why))
        sock.socket.close()

    await serve_gated(gate, handle, listeners, HANDOVER_SOCKET)
