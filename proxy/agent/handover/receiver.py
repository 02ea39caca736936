"""The new side: gets the listening sockets of the proxy that runs, and takes its place when it is ready."""

from __future__ import annotations

import errno
import os
import socket
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
    """The proxy that runs, while this process gets ready to take its place.

    Attributes:
        pid: of its process.
    """

    def __init__(self, sock: trio.SocketStream, pid: int) -> None:
        self._sock, self.pid = sock, pid

    @classmethod
    async def meet(cls, path: str, host: str, into: InheritedListeners) -> Self | None:
        """Connect to a proxy that can be taken over at `path` and get its sockets; None: there is none.

        Raises StartError, with one line that says why it cannot be taken over.
        """
        try:
            sock = await trio.open_unix_socket(path)
        except OSError as error:
            if error.errno in NO_LISTENER:
                return None
            raise StartError(f"cannot take over from the proxy behind {path}: {error.strerror}") from None
        try:
            with trio.fail_after(ANSWER):
                return cls(sock, await _receive_all(sock, host, into))
        except BaseException as error:
            await trio.aclose_forcefully(sock)
            if isinstance(error, HandoverError | trio.TooSlowError):
                why = str(error) if isinstance(error, HandoverError) else f"no answer in {ANSWER:g} s"
                raise StartError(f"cannot take over from the proxy behind {path}: {why}") from None
            raise

    async def replace(self, seconds: float) -> bool:
        """This process is ready: take over, and leave the old one so many seconds for its streams. On return it accepts
        nothing any more; False: it has ended before it came to that. Raises StartError if it keeps its sockets.
        """
        try:
            with trio.fail_after(ANSWER):
                say(self._sock, HandoverStep(word="ready"))  # one that listens no more may have said why
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
        """Give up; the old process goes on. Idempotent."""
        self._sock.socket.close()


async def _receive_all(sock: trio.SocketStream, host: str, into: InheritedListeners) -> int:
    """Returns the old process's id."""
    check_peer(sock.socket)
    message, _ = await receive(sock)
    if isinstance(message, HandoverStep):
        raise HandoverError(message.why)
    if not isinstance(message, HandoverOffer) or message.version != VERSION:
        raise HandoverError("it is of a version that hands over in another way: stop it first")
    if message.host != host:
        raise HandoverError(f"it is the proxy of host {message.host!r}, this is that of {host!r}")
    for _ in range(message.sockets):
        item, descriptors = await receive(sock)
        if not isinstance(item, HandoverSocket) or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            raise HandoverError(f"it sends {item} instead of a socket")
        lock = descriptors[1] if len(descriptors) > 1 else None
        birth = SocketIdentity(*item.birth) if item.birth is not None else None
        inheritable = InheritableListener(
            socket.socket(fileno=descriptors[0]), lock, birth, item.mode, item.owner, item.group
        )
        into.put(item.kind, item.address, inheritable)
    # Not the kernel's word: that is who listened there first, and the socket may have changed hands since.
    return message.pid
