"""Accepting that can be stopped and started again, without an effect on connections accepted before."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio

from control.base.system.accepting import accept_all


class AcceptGate:
    """Says whether connections are accepted. It is open at first.

    Attributes:
        failing: why this machine cannot accept at the moment, by the descriptors of the sockets where it cannot.
    """

    def __init__(self) -> None:
        self.failing: dict[int, str] = {}
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
    listen: str,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run `handler` for each connection while the gate is open, and close the connection when it returns; until
    cancelled. Closing the gate cancels no handler; new connections then wait in the kernel's queue. The caller closes
    the listeners, which the log calls `listen`.
    """

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as handlers:

        async def serve() -> None:
            if not listeners:  # there will be some when the gate is opened again
                await trio.sleep_forever()
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(accept_from, listener)

        async def accept_from(listener: trio.SocketListener) -> None:
            borrowed = socket.socket(fileno=listener.socket.fileno())  # trio does not give its own one away
            try:
                borrowed.setblocking(False)
                await accept_all(borrowed, listen, handle, handlers, gate.failing)
            finally:
                borrowed.detach()

        task_status.started(listeners)
        await gate.guard(serve)
