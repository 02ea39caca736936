"""``hostlane net watch``: the network of a host whose proxy has no right to make it."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import structlog
import trio

from proxy.config.schema import Config
from proxy.netdev.apply.keep import keep
from proxy.netdev.apply.ready import prepare

log = structlog.get_logger()


async def watch(config: Config, elsewhere: Mapping[str, int]) -> None:
    """Make the interfaces, then `keep` them until SIGTERM or SIGINT. Raises StartError as `prepare`."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(heed)
            late = await prepare(config, elsewhere)
            if late is None:
                log.info("interfaces are as configured", interfaces=list(config.interfaces))
            await keep(config, elsewhere, late=late)
