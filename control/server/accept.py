"""Accepting clients, many at a time.

`trio.serve_listeners` accepts one for each round of the event loop, and a round takes as long as the work of everybody
who is ready: while hosts by the thousand connect, tens of milliseconds. Here a round takes all that wait.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable

import structlog
import trio

from control.base.system.accepting import EXHAUSTED, PAUSE

__all__ = ["AT_ONCE", "accept_all"]

log = structlog.get_logger()

AT_ONCE = 128
"""Connections accepted in one round; each costs some 50 µs."""
_OURS = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT)


async def accept_all(
    listening: socket.socket, handler: Callable[[trio.SocketStream], Awaitable[object]], clients: trio.Nursery
) -> None:
    """Run `handler` in `clients` for each client that connects, until cancelled. The socket must be non-blocking; it,
    and every stream, is its receiver's to close."""
    full = False
    while True:
        await trio.lowlevel.wait_readable(listening)
        try:
            for _ in range(AT_ONCE):
                client, _ = listening.accept()
                clients.start_soon(handler, trio.SocketStream(trio.socket.from_stdlib_socket(client)))
                full = False
        except OSError as error:
            if error.errno in EXHAUSTED:
                if not full:
                    log.error("clients have to wait", error=os.strerror(error.errno).lower())
                full = True
                await trio.sleep(PAUSE)
            elif error.errno in _OURS:
                raise
            # Any other error is one client's, whose connection broke before it was accepted (accept(2)).
