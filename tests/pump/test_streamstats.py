"""Counting streams."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
import trio.testing

from proxy.errors import CloseReason
from proxy.pump.streamstats import LINES_AT_ONCE, StreamStats


def test_counts() -> None:
    stats = StreamStats()
    for _ in range(3):
        stats.opened += 1
    stats.end(CloseReason.FINISHED)
    stats.end(CloseReason.LINK_LOST)
    assert (stats.open, stats.opened, stats.failed) == (1, 3, 1)
    for reason in (CloseReason.NOT_ALLOWED, CloseReason.NOT_ALLOWED):
        stats.opened += 1
        stats.end(reason)
    assert stats.failures == {CloseReason.LINK_LOST: 1, CloseReason.NOT_ALLOWED: 2}
    assert stats.failed == 3


@pytest.mark.failure(18)
def test_who_makes_streams_fail_does_not_choose_how_much_is_written(logs: list[MutableMapping[str, Any]]) -> None:
    stats = StreamStats()
    streams = 10 * LINES_AT_ONCE
    for _ in range(streams):
        stats.opened += 1
        if stats.end(CloseReason.NOT_ALLOWED):
            stats.report(CloseReason.NOT_ALLOWED, since=0.0)
    assert stats.failures == {CloseReason.NOT_ALLOWED: streams}
    written = len(logs)
    stats.report(CloseReason.ABORTED, since=0.0)
    stats.report(CloseReason.ABORTED, since=0.0)
    assert written + sum(entry.get("suppressed", 0) for entry in logs) == streams
    assert "suppressed" not in logs[-1], "said once"


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("reason", CloseReason)
def test_what_applications_choose_is_no_failure_and_news_only_on_request(reason: CloseReason, trace: bool) -> None:
    stats = StreamStats(trace)
    stats.opened += 1
    expected = reason in (CloseReason.FINISHED, CloseReason.ABORTED)
    assert stats.end(reason) == (trace or not expected)
    assert stats.failed == (not expected)


@pytest.mark.parametrize(
    ("reason", "level"),
    [(CloseReason.FINISHED, "debug"), (CloseReason.ABORTED, "debug"), (CloseReason.LINK_LOST, "warning")],
)
def test_report(reason: CloseReason, level: str, logs: list[MutableMapping[str, Any]]) -> None:
    StreamStats().report(reason, since=0.0, service="redis", peer=None, sent=7)
    [entry] = logs
    assert entry.pop("age_s") > 0
    assert entry == {
        "event": "stream ended",
        "log_level": level,
        "reason": reason.label,
        "service": "redis",
        "peer": None,
        "sent": 7,
    }


async def test_quiet_ends_are_those_that_nobody_hears_of() -> None:
    stats = StreamStats()
    assert stats.unlogged == {CloseReason.FINISHED, CloseReason.ABORTED}
    stats.trace = True
    assert not stats.unlogged
    stats.trace = False
    stats.opened += 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stats.idle)
        await trio.testing.wait_all_tasks_blocked()
        assert not stats.unlogged
        stats.end(CloseReason.FINISHED)
    assert stats.unlogged


async def test_idle() -> None:
    stats = StreamStats()
    await stats.idle()
    stats.opened += 1
    stats.opened += 1
    done = trio.Event()

    async def wait() -> None:
        await stats.idle()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        stats.end(CloseReason.FINISHED)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        stats.end(CloseReason.FINISHED)
        await done.wait()
