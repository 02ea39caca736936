"""Accepting that can stop and go on, while what was accepted is not concerned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Door:
    """Whether dials are accepted; open at first."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._opened = trio.Event()
        self.is_open = True

    def close(self) -> None:
        """Accept no more for now; what has been accepted goes on. Idempotent."""
        self.is_open = False
        self._scope.cancel()

    def open(self) -> None:
        """Accept again. Idempotent."""
        self.is_open = True
        self._opened.set()

    async def guard(self, serve: Callable[[], Awaitable[object]]) -> None:
        """Run `serve` while it is open, anew each time, until cancelled."""
        while True:
            with trio.CancelScope() as self._scope:
                if self.is_open:
                    await serve()
            self._opened = trio.Event()
            if not self.is_open:
                await self._opened.wait()


def duplicate(listener: trio.SocketListener) -> trio.SocketListener:
    """Another descriptor of the same listening socket, to be served and closed while this one stays open: no caller
    notices.
    """
    return trio.SocketListener(listener.socket.dup())
