"""The processes whose place was taken and which still let their streams finish: a proxy has a socket to each of them,
its *leash*, and hands them on to the process that takes its own place. There are at most MOST: what upgrades leave
behind must not add up. The kernel closes a leash when either end has ended, which changes nothing for the other one.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

import structlog
import trio

from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

MOST = 2
"""Processes that may drain beside the one that accepts: each holds as much memory as its streams need."""
HURRY = 60.0
"""Seconds that the oldest one then has at most. What it must cut is spread over the last quarter of it."""
_END = b"end"


class Predecessors:
    """The leashes that a process holds, the oldest first. Owns the sockets.

    Args:
        inherited: name (`Leash.name`) and socket of each.
    """

    def __init__(self, inherited: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._held = list(inherited)

    def offers(self) -> Iterator[tuple[str, InheritableListener]]:
        """Those of processes that still live, for the one that takes the place of this one. They stay ours."""
        for name, sock in list(self._held):
            if _ended(sock):
                self._held.remove((name, sock))
                sock.close()
            else:
                yield name, InheritableListener(sock)

    def bound(self) -> None:
        """Tell the oldest ones to end, if there are more than MOST."""
        living = [name for name, _ in self.offers()]
        for name, sock in self._held[: max(0, len(living) - MOST)]:
            log.warning("a process that was taken over must end sooner", process=name, at_most=MOST, within_s=HURRY)
            with suppress(OSError):  # it has ended since
                sock.send(_END, socket.MSG_DONTWAIT)
            self._held.remove((name, sock))
            sock.close()

    def close(self) -> None:
        """Let go of them: they go on as they are. Idempotent."""
        held, self._held = self._held, []
        for _, sock in held:
            sock.close()


class Leash:
    """The end of it that the process keeps which is taken over, and until then the other one too.

    Attributes:
        name: its process id, and what tells it from that of a process of another container.
    """

    def __init__(self) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._near, self.far = socket.socketpair()
        self._near.setblocking(False)

    async def told(self) -> bool:
        """Wait until the process at the other end says that this one must end (True), or has ended itself."""
        self.far.close()
        await trio.lowlevel.wait_readable(self._near)
        with suppress(OSError):
            return self._near.recv(len(_END)) == _END
        return False

    def close(self) -> None:
        """Close both ends. Nobody may be waiting in `told`. Idempotent."""
        self._near.close()
        self.far.close()


def _ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
