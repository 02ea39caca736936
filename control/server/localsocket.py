"""The control server's own socket, at which its administrator commands, for as long as the server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from control.base.reading.addresses import CONTROL_SOCKET
from control.base.system.accepting import accept_all
from control.base.system.keptsocket import LOOK, KeptSocket, SocketKeeper

__all__ = ["serve"]


async def serve(
    kept: KeptSocket, handler: Callable[[trio.SocketStream], Awaitable[object]], clients: trio.Nursery
) -> None:
    """Run `handler` in `clients` for each client, until cancelled; at a new socket whenever somebody has removed the
    file. `kept` stays the caller's to close.
    """
    keeper = SocketKeeper()

    def restore() -> bool:
        kept.restore()
        return True

    while True:
        before = kept.bound
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept_all, before.socket, CONTROL_SOCKET, handler, clients)
                while kept.bound is before:
                    await trio.sleep(LOOK)
                    keeper.mend({} if before.in_place else {kept.address: restore})
                accepting.cancel_scope.cancel()
        finally:
            if kept.bound is not before:
                before.close()
