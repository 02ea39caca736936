"""The numbers of a process."""

from __future__ import annotations

import time

from control.base.exposition import Readings
from proxy.telemetry.metrics import catalog
from proxy.telemetry.metrics.process import ReloadCount
from tests.pump.agents import mesh
from tests.telemetry.metrics.told import both, scrape


async def test_of_a_proxy_that_runs() -> None:
    began = time.time()
    async with mesh(mtls=True) as hosts:
        _, near, _ = await both(hosts)
        told = await scrape(near)
        assert told("hostlane_memory_limit_bytes") == hosts.agents["host-a"].pump.budget.limit
        assert 0 < told("hostlane_resident_memory_bytes") < 1 << 34
        assert told("hostlane_cpu_seconds_total") > 0
        assert told("hostlane_start_time_seconds") <= began + 100
        assert told("hostlane_certificate_expiry_time_seconds") > time.time()
        assert told("hostlane_build_info", core="python") + told("hostlane_build_info", core="compiled") == 1
        assert told("hostlane_pump_turn_seconds_count") > 0
        assert told("hostlane_pump_turn_seconds_bucket", le="+Inf") == told("hostlane_pump_turn_seconds_count")
        assert told("hostlane_pump_busy_seconds_total") > 0
        assert told("hostlane_draining") == 0
        assert not list(told.values("hostlane_control_connected"))  # there is no control plane
        assert told("hostlane_config_reloads_total", result="applied") == 0
        hosts.agents["host-a"].reload.count.done("applied")
        assert (await scrape(near))("hostlane_config_reloads_total", result="applied") == 1


def test_when_the_configuration_was_applied_last() -> None:
    count = ReloadCount()
    began = count.applied_at
    count.done("refused")
    assert (count.results, count.applied_at) == ({"refused": 1}, began)
    count.done("applied")
    assert count.applied_at >= began


def test_turns_of_the_first_bucket_are_those_that_are_left() -> None:
    readings = Readings()
    readings.buckets(catalog.PUMP_TURN, (1.0, 2.0), [7, 1, 0], 9.5, ())
    assert readings.series == 5
