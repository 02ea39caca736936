"""The old side: offers its listening sockets to a process that comes for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import structlog
import trio

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
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

GETTING_READY = 120.0
"""Seconds that the new process may take to get ready: its interfaces may need a while to come up (up_timeout)."""
ANSWER = 5.0
"""Seconds that it may take for one word then; meanwhile nobody accepts anything."""


TOO_SLOW = "the other process takes too long"


class OfferedListener(NamedTuple):
    """A listening socket, and what it is for (proxy/agent/handover/inheritance.py)."""

    kind: str
    address: str
    inheritable: InheritableListener


class HandoverSource(Protocol):
    """The proxy whose sockets these are."""

    @property
    def host(self) -> str:
        """Its name."""

    def reserve(self) -> str | None:
        """Why nobody can take over now; None: somebody can, and it listens on the same until `resume` or `retire`."""

    def sockets(self) -> Iterable[OfferedListener]:
        """All that it listens on."""

    def pause(self, pid: int) -> str | None:
        """Accept nothing more for now: process `pid` is about to. Returns why not, if it cannot be taken over any more;
        then it has done nothing.
        """

    def resume(self) -> None:
        """It will not: go on as before, whether held or not."""

    def retire(self, seconds: float) -> None:
        """It does: close the sockets, and end when the streams are through, within so many seconds."""


async def hand_over(sock: trio.SocketStream, source: HandoverSource) -> None:
    """Hand everything over to the process at the other end, or nothing. Whatever goes wrong is a line in the log, and
    the proxy goes on. Closes `sock`, with a *no* before it unless all was handed over: only a process that has ended is
    silent, so the other one knows that nobody has the sockets then.
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
        say(sock, HandoverStep(word="no", why=why))  # in vain if it was handed over: closed by then
        sock.socket.close()


async def _prepare(sock: trio.SocketStream, source: HandoverSource) -> None:
    """Until the other process is ready."""
    sockets = list(source.sockets())
    try:
        with trio.fail_after(GETTING_READY):
            await send(sock, HandoverOffer(version=VERSION, host=source.host, pid=os.getpid(), sockets=len(sockets)))
            for offered in sockets:
                await _send(sock, offered)
            await expect(sock, "ready")
    except trio.TooSlowError:
        raise HandoverError(TOO_SLOW) from None


async def _yield(sock: trio.SocketStream, source: HandoverSource, pid: int) -> None:
    """It is held: leave it to the other process, or keep it, as that one's answer says. A deadline, a cancellation or
    the end of that process does not make the answer unsure: it counts if it has come before `last_word`.
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
    _, _, birth, mode, owner, group = offered.inheritable
    return HandoverSocket(kind=offered.kind, address=offered.address, birth=birth, mode=mode, owner=owner, group=group)


async def _send(sock: trio.SocketStream, offered: OfferedListener) -> None:
    with ExitStack() as files:
        await send(sock, _described(offered), _duplicates(offered.inheritable, files))


def _duplicates(inheritable: InheritableListener, files: ExitStack) -> list[int]:
    """Descriptors that stay what they are until they are sent: a proxy that is told to stop meanwhile closes its own,
    and the numbers may be those of callers by then.
    """
    if inheritable.sock.fileno() < 0:  # and the lock was closed with it
        raise HandoverError("it is about to stop")
    found: list[int] = []
    try:
        for descriptor in (inheritable.sock.fileno(), inheritable.lock):
            if descriptor is not None:
                found.append(os.dup(descriptor))
                files.callback(os.close, found[-1])
    except OSError as error:
        raise HandoverError(f"duplicating a descriptor: {error.strerror}") from None
    return found


async def serve(listener: trio.SocketListener, source: HandoverSource, gate: AcceptGate) -> None:
    """Give to whoever comes, until cancelled."""

    async def handle(sock: trio.SocketStream) -> None:
        await hand_over(sock, source)

    await serve_gated(gate, handle, [listener])
