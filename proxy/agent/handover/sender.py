"""The old side: hands its listening sockets over to a process that connects for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import structlog
import trio

from control.base.reading.addresses import HANDOVER_SOCKET
from proxy.agent.handover.protocol import (
    VERSION,
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverStep,
    check_peer,
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
    """Hand all sockets over to the process at the other end, or none. An error is logged, and the proxy goes on.

    Closes `sock`. Unless the sockets were handed over it sends *no* before: so when the other process sees the
    connection closed without a *no*, it knows that this one has ended and has the sockets no more.
    """
    pid, why = 0, "the process that has them is ending"
    try:
        pid = check_peer(sock.socket)
        if (refusal := source.reserve()) is not None:
            raise HandoverError(refusal)
        try:
            await _prepare(sock, source)
            if (refusal := source.pause(pid)) is not None:
                raise HandoverError(refusal)
        except BaseException:
            source.resume()
            raise
        await _yield(sock, source, pid)
    except HandoverError as error:
        why = str(error)
        log.warning("proxy not handed over", pid=pid, error=why)
    finally:
        say(sock, HandoverStep(word="no", why=why))  # does nothing after a handover: `sock` is closed by then
        sock.socket.close()


async def _prepare(sock: trio.SocketStream, source: HandoverSource) -> None:
    """Send the sockets, and wait until the other process is ready. Raises HandoverError."""
    sockets = list(source.sockets())
    try:
        with trio.fail_after(GETTING_READY):
            state, count = source.state, len(sockets)
            secret = "" if state is None else state.secret
            offer = HandoverOffer(version=VERSION, host=source.host, pid=os.getpid(), sockets=count, secret=secret)
            with ExitStack() as files:
                lock = None if state is None else state.descriptor
                await send(sock, offer, [] if lock is None else [_duplicate(lock, files)])
            for offered in sockets:
                await _send(sock, offered)
            await expect(sock, "ready")
    except trio.TooSlowError:
        raise HandoverError(TOO_SLOW) from None


async def _yield(sock: trio.SocketStream, source: HandoverSource, pid: int) -> None:
    """After `pause`: `retire` if the other process answers *taken*, else `resume`. The answer counts if it has arrived
    when `last_word` is called: a timeout, a cancellation or the end of that process cannot leave it unclear. Raises
    HandoverError if the sockets are kept.
    """
    answer: HandoverStep | None = None
    try:
        say(sock, HandoverStep(word="yours"))
        with trio.move_on_after(ANSWER) as patience:
            await trio.lowlevel.wait_readable(sock.socket)
    finally:
        answer = last_word(sock)
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
    _, _, birth, mode, owner, group, kept = offered.inheritable
    return HandoverSocket(
        kind=offered.kind, address=offered.address, birth=birth, mode=mode, owner=owner, group=group, kept=kept
    )


async def _send(sock: trio.SocketStream, offered: OfferedListener) -> None:
    with ExitStack() as files:
        await send(sock, _described(offered), _duplicates(offered.inheritable, files))


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


async def serve(listener: trio.SocketListener, source: HandoverSource, gate: AcceptGate) -> None:
    """Hand over to whichever process connects, until cancelled."""

    async def handle(sock: trio.SocketStream) -> None:
        await hand_over(sock, source)

    await serve_gated(gate, handle, [listener], HANDOVER_SOCKET)
