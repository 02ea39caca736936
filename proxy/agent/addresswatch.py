"""Links whose local address is gone are given up at once, not when a ping has found no answer; and sessions that wait
for a link dial again as soon as this host's addresses have changed.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial

import structlog
import trio

from proxy.errors import NetError
from proxy.netdev.observe.watch import look, open_watch, watch
from proxy.pool.pools import Pools

log = structlog.get_logger()


class AddressWatch:
    """Watches this host's addresses for the pools."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._held: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Watch until cancelled. Where that is impossible, say so and return: pings find dead links all the same."""
        try:
            with closing(open_watch()) as sock:
                await watch(sock, self._changed)
        except OSError as error:
            log.warning("cannot watch this host's addresses", error=error.strerror or str(error))

    async def _changed(self) -> None:
        bound, waiting = self._pools.bound()
        if not bound and not waiting:
            return
        try:
            found = await trio.to_thread.run_sync(partial(look, bound))
        except NetError as error:
            log.warning("cannot look at this host's addresses", error=str(error))
            return
        self._pools.lost(found.missing)
        if found.held != self._held:
            self._held = found.held
            self._pools.hurry()
