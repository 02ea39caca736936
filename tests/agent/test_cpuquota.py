"""A quota of CPU time that comes and goes under a running proxy."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent import cpuquota
from proxy.pump.busypoll import BusyPoll
from tests.pump.rig import until


async def test_it_is_noticed_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: str | None = None
    looks = 0

    def look() -> str | None:
        nonlocal looks
        looks += 1
        return found

    monkeypatch.setattr(cpuquota, "cpu_quota", look)
    monkeypatch.setattr(cpuquota, "INTERVAL", 0.0)
    busy_poll = BusyPoll(None)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cpuquota.watch, busy_poll)
            await until(lambda: looks > 3, "some looks")
            assert (busy_poll.on, logs) == (True, [])
            found = "/sys/fs/cgroup/cpu.max"
            await until(lambda: not busy_poll.on, "the quota")
            found = None
            await until(lambda: busy_poll.on, "none")
            nursery.cancel_scope.cancel()
    assert [(each["on"], each["cpu_quota"]) for each in logs] == [(False, "/sys/fs/cgroup/cpu.max"), (True, None)]
