"""Whether the pump's loop turns."""

from __future__ import annotations

import socket
from contextlib import suppress
from select import EPOLLIN

import trio

from proxy.pump.loop import Pump


class Heartbeat:
    """Wakes the pump through a descriptor in its epoll, as a caller's bytes do, so that only a loop that turns answers.
    It costs nothing but the turn. `close` before the pump shuts down.
    """

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self._turned = trio.Event()
        pump.watch(self._theirs.fileno(), self, EPOLLIN)

    async def beat(self) -> None:
        """Return when the pump has turned once more. If it never does, this never returns."""
        turned = self._turned
        with suppress(BlockingIOError):  # it has been asked so often already
            self._ours.send(b"x")
        await turned.wait()

    def ready(self, mask: int) -> None:
        """The pump turns (Watcher)."""
        with suppress(BlockingIOError):
            self._theirs.recv(4096)
        turned, self._turned = self._turned, trio.Event()
        turned.set()

    def crashed(self) -> None:
        """Never called: `ready` does not fail (Watcher)."""

    def abandoned(self) -> None:
        """Never called: `close` comes first (Watcher)."""

    def close(self) -> None:
        """Ask no more; who waits in `beat` must be cancelled. Called once."""
        self._pump.release(self._theirs)
        self._theirs.close()
        self._ours.close()
