"""The new side: receives the listening sockets of the running proxy, and takes its place when it is ready."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import Self

import structlog
import trio

from control.base.system.unixsock import SocketIdentity
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.agent.handover.protocol import (
    VERSION,
    HandoverError,
    HandoverOffer,
    HandoverPeerGone,
    HandoverSocket,
    HandoverStep,
    check_peer,
    expect,
    receive,
    say,
)
from proxy.agent.handover.sender import ANSWER
from proxy.errors import StartError
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

NO_LISTENER = (errno.ENOENT, errno.ECONNREFUSED)


class Predecessor:
    """The running proxy that this process takes over from, and the connection to it.

    Attributes:
        pid: its process id.
        secret: of its state_dir; empty: it has none, or has not said it.
    """

    def __init__(self, sock: trio.SocketStream, offer: HandoverOffer, lock: int | None) -> None:
        # Not SO_PEERCRED's pid: that names the process that called listen() first, which may have handed the socket
        # over since.
        self._sock, self.pid, self.secret, self._lock = sock, offer.pid, offer.secret, lock

    def take_lock(self) -> int | None:
        """The descriptor of the lock of its state_dir, which the caller owns from now on; None: it has sent none."""
        lock, self._lock = self._lock, None
        return lock

    @classmethod
    async def meet(cls, path: str, host: str, into: InheritedListeners) -> Self | None:
        """Connect to the proxy that listens at `path`, and receive its sockets; None: no proxy listens there.

        Raises StartError, with one line that says why it cannot be taken over from.
        """
        try:
            sock = await trio.open_unix_socket(path)
        except OSError as error:
            if error.errno in NO_LISTENER:
                return None
            raise StartError(f"cannot take over from the proxy behind {path}: {error.strerror}") from None
        try:
            with trio.fail_after(ANSWER):
                return cls(sock, *await _receive_all(sock, host, into))
        except BaseException as error:
            await trio.aclose_forcefully(sock)
            if isinstance(error, HandoverError | trio.TooSlowError):
                why = str(error) if isinstance(error, HandoverError) else f"no answer in {ANSWER:g} s"
                raise StartError(f"cannot take over from the proxy behind {path}: {why}") from None
            raise

    async def replace(self, seconds: float) -> bool:
        """This process is ready: take over. The old one may let its streams finish for `seconds`. On return it accepts
        nothing any more; False if it has ended before it handed over. Raises StartError if it keeps its sockets.
        """
        try:
            with trio.fail_after(ANSWER):
                say(self._sock, HandoverStep(word="ready"))  # not sent if it has closed; then it may have sent why
                await expect(self._sock, "yours")
                if not say(self._sock, HandoverStep(word="taken", seconds=seconds)):
                    await expect(self._sock, "no")
        except trio.TooSlowError:
            raise StartError(f"process {self.pid} does not hand over: no answer in {ANSWER:g} s") from None
        except HandoverPeerGone:
            log.warning("the proxy to take over from has ended", from_pid=self.pid)
            return False
        except HandoverError as error:
            raise StartError(f"process {self.pid} does not hand over: {error}") from None
        finally:
            self._sock.socket.close()
        return True

    def close(self) -> None:
        """Close the connection, and the lock if nobody has taken it. Before `replace`, the old process then goes on as
        before. Idempotent.
        """
        self._sock.socket.close()
        if (lock := self.take_lock()) is not None:
            os.close(lock)


async def _receive_all(
    sock: trio.SocketStream, host: str, into: InheritedListeners
) -> tuple[HandoverOffer, int | None]:
    """Put the old process's sockets `into` the inherited ones; returns what it has said of itself, and the descriptor
    of its lock. Raises HandoverError.
    """
    check_peer(sock.socket)
    message, locks = await receive(sock)
    with ExitStack() as unless_whole:
        for each in locks:
            unless_whole.callback(os.close, each)
        if isinstance(message, HandoverStep):
            raise HandoverError(message.why)
        if not isinstance(message, HandoverOffer) or message.version != VERSION:
            raise HandoverError("it is of a version that hands over in another way: stop it first")
        if message.host != host:
            raise HandoverError(f"it is the proxy of host {message.host!r}, this is that of {host!r}")
        await _receive_sockets(sock, message.sockets, into)
        for each in locks[1:]:
            os.close(each)
        unless_whole.pop_all()
        return message, locks[0] if locks else None


async def _receive_sockets(sock: trio.SocketStream, count: int, into: InheritedListeners) -> None:
    for _ in range(count):
        item, descriptors = await receive(sock)
        if not isinstance(item, HandoverSocket) or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            raise HandoverError(f"it sends {item} instead of a socket")
        lock = descriptors[1] if len(descriptors) > 1 else None
        birth = SocketIdentity(*item.birth) if item.birth is not None else None
        inheritable = InheritableListener(
            socket.socket(fileno=descriptors[0]), lock, birth, item.mode, item.owner, item.group, item.kept
        )
        into.put(item.kind, item.address, inheritable)
