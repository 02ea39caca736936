"""Messages with descriptors over a Unix socket that keeps packets apart (SOCK_SEQPACKET)."""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec
import structlog
import trio

from control.base.system.accepting import OF_CLIENT, PAUSE

__all__ = ["Broken", "Channel", "attend_all"]

log = structlog.get_logger()

MOST_BYTES = 1 << 16
MOST_DESCRIPTORS = 253
"""SCM_MAX_FD."""
_INT = array.array("i").itemsize

T = TypeVar("T")


_NOBODY = (errno.EAGAIN, errno.EWOULDBLOCK)


class Broken(Exception):
    """The other end has gone, or says what cannot be understood; its text says which."""


class Channel(Generic[T]):
    """One end of the connection between the door and somebody else, which it owns. What is said waits in a queue for
    `send`, so that nobody waits for an end that does not read.

    Args:
        kinds: the messages that the other end sends, a union of Structs.
    """

    def __init__(self, sock: socket.socket, kinds: object) -> None:
        sock.setblocking(False)
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kinds)
        self._queue: deque[tuple[msgspec.Struct, list[int]]] = deque()
        self._said = trio.Event()

    def say(self, message: msgspec.Struct, sockets: Sequence[socket.SocketType] = ()) -> None:
        """Have a message sent with duplicates of these sockets, which are made at once. Raises OSError if there is no
        descriptor for them; nothing is sent then.
        """
        descriptors: list[int] = []
        try:
            for sock in sockets:
                descriptors.append(os.dup(sock.fileno()))
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self._queue.append((message, descriptors))
        self._said.set()

    async def send(self) -> None:
        """Send what is said until cancelled. Raises Broken."""
        while True:
            await self._said.wait()
            self._said = trio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Send what was said so far; for who does not run `send`. Raises Broken."""
        while self._queue:
            message, descriptors = self._queue.popleft()
            try:
                await self._send(message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    async def _send(self, message: msgspec.Struct, descriptors: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            await self._sock.sendmsg([msgspec.json.encode(message)], rights)
        except (OSError, trio.ClosedResourceError) as error:
            raise Broken(f"the connection is lost ({getattr(error, 'strerror', None) or error})") from None

    async def receive(self) -> tuple[T, list[int]]:
        """The next message, and the descriptors that came with it, which are the caller's to close. Raises Broken."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT)
        try:
            data, extra, flags, _ = await self._sock.recvmsg(MOST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except (OSError, trio.ClosedResourceError) as error:
            raise Broken(f"the connection is lost ({getattr(error, 'strerror', None) or error})") from None
        descriptors = array.array("i")
        for level, kind, content in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) // _INT * _INT])
        try:
            if not data:
                raise Broken("the other end has closed the connection")
            if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                raise Broken("a message was cut off: this process has no descriptors left, or it was too long")
            return self._decoder.decode(data), descriptors.tolist()
        except (Broken, msgspec.MsgspecError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise error if isinstance(error, Broken) else Broken(f"it is not understood: {error}") from None

    def close(self) -> None:
        """Close the socket, and drop what was not sent; whoever waits gets Broken. Idempotent."""
        self._sock.close()
        while self._queue:
            for descriptor in self._queue.popleft()[1]:
                os.close(descriptor)


async def attend_all(listening: socket.socket, whom: str, attend: Callable[[socket.socket], Awaitable[object]]) -> None:
    """Accept whoever connects, and attend to each in a task, until cancelled; `attend` takes the socket over. While
    this machine cannot accept, they wait; a line in the log, about ``whom``, says so once.
    """
    said = False
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listening)
            try:
                sock, _ = listening.accept()
            except OSError as error:
                if error.errno in OF_CLIENT or error.errno in _NOBODY:
                    continue
                if not said:
                    log.error(f"cannot accept {whom}", error=error.strerror, retry_in_s=PAUSE)
                said = True
                await trio.sleep(PAUSE)
            else:
                said = False
                nursery.start_soon(attend, sock)
