"""Keeps busy polling out of a quota of CPU time, which may come and go meanwhile (``docker update --cpus``)."""

from __future__ import annotations

import structlog
import trio

from control.base.system.cgroup import cpu_quota
from proxy.pump.busypoll import BusyPoll

log = structlog.get_logger()

INTERVAL = 30.0
"""Seconds from one look to the next."""


async def watch(busy_poll: BusyPoll) -> None:
    """Say whether there is a quota, until cancelled."""
    while True:
        file = await trio.to_thread.run_sync(cpu_quota)
        if busy_poll.auto and busy_poll.quota != (file is not None):
            log.info("busy polling", on=file is None, cpu_quota=file)
        busy_poll.quota = file is not None
        await trio.sleep(INTERVAL)
