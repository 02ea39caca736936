"""Accepting clients, many at a time, whatever accept(2) says.

`trio.serve_listeners` accepts one for each round of the event loop, and a round takes as long as the work of everybody
who is ready: while hosts by the thousand connect, tens of milliseconds. Here a round takes all that wait. And trio's
ends the server when accept(2) is denied (EACCES), or asks again without a pause (EPERM): see `OF_CLIENT`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping

import structlog
import trio

__all__ = ["AT_ONCE", "OF_CLIENT", "PAUSE", "accept_all"]

log = structlog.get_logger()

OF_CLIENT = frozenset({
    errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.ENETDOWN, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT,
})  # fmt: skip
"""What accept(2) says of one client, whose connection broke before it was accepted, who is out of the queue with
that (accept(2), "Error handling"). Every other error is this machine's: descriptors or memory have run out (EMFILE,
ENFILE, ENOBUFS, ENOMEM), or a security module, a seccomp filter or a firewall denies it (EACCES, EPERM). The client
then stays in the queue, and the next attempt fails alike."""
PAUSE = 0.1
"""Seconds until the next attempt after an error that is this machine's, as trio does: until something changes, the
client that waits would be reported all the time."""
AT_ONCE = 128
"""Connections accepted in one round; each costs some 50 µs."""

_CLOSED = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
_NOBODY = (errno.EAGAIN, errno.EWOULDBLOCK)


async def accept_all(
    listening: socket.socket,
    listen: str,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    clients: trio.Nursery,
    failing: MutableMapping[int, str] | None = None,
) -> None:
    """Run `handler` in `clients` for each client that connects, until cancelled. While this machine cannot accept,
    clients wait; a line in the log says so once, and calls the socket `listen`; and `failing` says why, by the socket's
    descriptor. Raises OSError when the socket has been closed. The socket must be non-blocking; it, and every stream,
    is its receiver's to close.
    """
    failing = {} if failing is None else failing
    number = listening.fileno()
    try:
        await _accept_all(listening, listen, handler, clients, failing, number)
    finally:
        failing.pop(number, None)


async def _accept_all(
    listening: socket.socket,
    listen: str,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    clients: trio.Nursery,
    failing: MutableMapping[int, str],
    number: int,
) -> None:
    said = False
    while True:
        if number not in failing:  # else try again, also if nobody waits any more
            await trio.lowlevel.wait_readable(listening)
        # Cancelled in the very round in which a client came, the caller may have closed the socket by now.
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            for _ in range(AT_ONCE):
                client, _ = listening.accept()
                clients.start_soon(handler, trio.SocketStream(trio.socket.from_stdlib_socket(client)))
                said = False
                failing.pop(number, None)
        except OSError as error:
            if error.errno in _CLOSED:
                raise
            if error.errno in OF_CLIENT:
                continue
            if error.errno in _NOBODY:
                failing.pop(number, None)
                continue
            why = failing[number] = os.strerror(error.errno or 0)
            if not said:
                # Without descriptors each client that goes lets another one in, and then it is said again.
                kind = (listen, error.errno)
                log.error("cannot accept a connection", kind=kind, listen=listen, error=why, retry_in_s=PAUSE)
            said = True
            await trio.sleep(PAUSE)
