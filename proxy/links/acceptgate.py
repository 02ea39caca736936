"""Accepting that can stop and go on, while what was accepted is not concerned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from control.base.system.accepting import EXHAUSTED, PAUSE

log = structlog.get_logger()


class AcceptGate:
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


async def serve_gated(
    gate: AcceptGate,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `trio.serve_listeners`, while the gate is open; a gate that closes stops no handler, and leaves connections
    waiting. The listeners stay their giver's to close.
    """
    async with trio.open_nursery() as handlers:

        async def serve() -> None:
            # Duplicates of the descriptors, since they are closed with the serving; no caller notices.
            copies: list[trio.SocketListener] = []
            try:
                for listener in listeners:
                    copies.append(await _copied(listener))
                await trio.serve_listeners(handler, copies, handler_nursery=handlers)
            finally:
                for copy in copies:
                    copy.socket.close()

        task_status.started(listeners)
        await gate.guard(serve)


async def _copied(listener: trio.SocketListener) -> trio.SocketListener:
    """A gate that opens again when descriptors have run out meanwhile must not end the proxy."""
    while True:
        try:
            return trio.SocketListener(listener.socket.dup())
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("cannot accept connections", error=error.strerror, retry_in_s=PAUSE)
        await trio.sleep(PAUSE)
