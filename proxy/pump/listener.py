"""Accepting local connections inside the pump: a burst per turn, and a pause when descriptors run out."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from select import EPOLLIN

import structlog

from proxy.pump.deadlines import Deadlines
from proxy.pump.loop import Pump

log = structlog.get_logger()

BURST = 16
"""Connections accepted per turn and listener, so that opening many does not delay the messages of those that are
open."""
MOST_WAITING = 4096
"""Connections that a listener's queue can hold (net.core.somaxconn)."""
PAUSE = 0.1
"""Seconds to leave a listener alone after the system refused a descriptor: nothing but an end of other connections
helps, and a level-triggered epoll would report the waiting connection all the time."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Quick(socket.socket):
    """A second handle on a listening socket's descriptor. What `accept` asks it about itself are plain attributes here:
    the library works them out anew for each connection, which costs as much as the system call of a small message.
    """

    family = socket.AF_UNIX
    type = socket.SOCK_STREAM
    proto = 0


class _QuickTcp(_Quick):
    family = socket.AF_INET


class _QuickTcp6(_Quick):
    family = socket.AF_INET6


_QUICK = {each.family: each for each in (_Quick, _QuickTcp, _QuickTcp6)}


class Listener:
    """Watches a listening, non-blocking socket, which stays its giver's to close (after `stop`).

    Args:
        listen: the configured address, for logs.

    Attributes:
        accepted: gets each new connection, non-blocking, and owns it.
    """

    def __init__(
        self,
        pump: Pump,
        deadlines: Deadlines,
        sock: socket.socket,
        listen: str,
        accepted: Callable[[socket.socket], None],
    ) -> None:
        self._pump, self._deadlines = pump, deadlines
        self._sock = sock
        self._quick = _QUICK[sock.family](fileno=sock.fileno())
        self._listen = listen
        self.accepted = accepted
        self._watching, self._held = True, False
        pump.watch(sock, self, EPOLLIN)

    def ready(self, mask: int) -> None:
        """Connections are waiting (Watcher)."""
        accept, accepted, worked = self._quick.accept, self.accepted, self._pump.worked
        for _ in range(BURST):
            try:
                sock, _address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    return self._pause(error)
                continue  # the caller has gone already (ECONNABORTED)
            sock.setblocking(False)
            accepted(sock)
            worked()

    def crashed(self) -> None:
        """A bug showed while a connection was taken in; the others are not to blame (Watcher)."""

    def finish(self) -> None:
        """Take in what is waiting already: those callers were told that they are connected. `stop` follows."""
        if self._watching:
            for _ in range(MOST_WAITING):
                try:
                    sock, _address = self._sock.accept()
                except OSError:  # nobody any more, or no descriptor: what is left is refused by the close
                    return
                sock.setblocking(False)
                self.accepted(sock)

    def _pause(self, error: OSError) -> None:
        log.error("cannot accept a connection", listen=self._listen, error=error.strerror, retry_in_s=PAUSE)
        self._pump.interest(self._sock.fileno(), 0)
        self._deadlines.add(PAUSE, self._continue)

    def hold(self, hold: bool) -> None:
        """Leave what comes in the queue for now, or go on."""
        self._held = hold
        if self._watching:
            self._pump.interest(self._sock.fileno(), 0 if hold else EPOLLIN)

    def _continue(self) -> None:
        if self._watching and not self._held:
            self._pump.interest(self._sock.fileno(), EPOLLIN)

    def stop(self) -> None:
        """Accept no more. Idempotent."""
        if self._watching:
            self._watching = False
            self._pump.release(self._sock)
            self._quick.detach()
