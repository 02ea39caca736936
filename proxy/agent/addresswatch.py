"""Links whose local address is gone are given up at once, not when a ping has found no answer; and sessions that wait
for a link dial again as soon as this host's addresses have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import structlog
import trio

from proxy.netdev.observe.watch import look, open_watch, watch
from proxy.pool.pools import Pools

log = structlog.get_logger()


class AddressWatch:
    """Watches this host's addresses for the pools.

    Args:
        news: called when addresses or interfaces have changed.
    """

    def __init__(self, pools: Pools, news: Callable[[], None] = lambda: None) -> None:
        self._pools, self._news = pools, news
        self._held: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Watch until cancelled. Where that is impossible, say so and return: pings find dead links all the same."""
        try:
            with closing(open_watch()) as sock:
                await watch(sock, self._changed)
        except OSError as error:
            log.warning("cannot watch this host's addresses", error=error.strerror or str(error))

    async def _changed(self) -> None:
        self._news()
        bound, waiting = self._pools.bound()
        if not bound and not waiting:
            return
        try:
            found = await trio.to_thread.run_sync(partial(look, bound))
        except OSError as error:  # without a descriptor, say: the next change may come when there is one
            log.warning("cannot look at this host's addresses", error=error.strerror or str(error))
            return
        self._pools.lost(found.missing)
        if found.held != self._held:
            self._held = found.held
            self._pools.hurry()
