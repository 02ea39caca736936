"""Accepting that can be stopped and started again, without an effect on connections accepted before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from control.base.system.accepting import EXHAUSTED, PAUSE

log = structlog.get_logger()


class AcceptGate:
    """Says whether connections are accepted. It is open at first."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._opened = trio.Event()
        self.is_open = True

    def close(self) -> None:
        """Stop accepting; accepted connections go on. Idempotent."""
        self.is_open = False
        self._scope.cancel()

    def open(self) -> None:
        """Accept again. Idempotent."""
        self.is_open = True
        self._opened.set()

    async def guard(self, serve: Callable[[], Awaitable[object]]) -> None:
        """Run `serve` whenever the gate is open, and cancel it when the gate closes; until cancelled."""
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
    """As `trio.serve_listeners`, while the gate is open. Closing the gate cancels no handler; new connections then wait
    in the kernel's queue. The caller closes the listeners.
    """
    async with trio.open_nursery() as handlers:

        async def serve() -> None:
            # On duplicates, because trio closes the listeners that it serves; those of the caller stay open.
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
    """A listener on a duplicate of the descriptor. If descriptors have run out, wait and try again: raising the error
    would end the proxy.
    """
    while True:
        try:
            return trio.SocketListener(listener.socket.dup())
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("cannot accept connections", error=error.strerror, retry_in_s=PAUSE)
        await trio.sleep(PAUSE)
