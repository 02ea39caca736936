"""Counting streams."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
import trio.testing

from proxy.errors import CloseReason
from proxy.pump.streamstats import StreamStats


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


@pytest.mark.failure(18, "27")
def test_failures_are_told_apart_by_service_direction_peer_and_reason(logs: list[MutableMapping[str, Any]]) -> None:
    stats = StreamStats()
    for service, peer, detail in [("redis", "b", "one"), ("redis", "b", "two"), ("web", "b", ""), ("redis", None, "")]:
        stats.report(CloseReason.NOT_ALLOWED, since=0.0, service=service, direction="inbound", peer=peer, detail=detail)
    stats.report(CloseReason.OVERLOADED, since=0.0, service="redis", direction="inbound", peer="b")
    stats.report(CloseReason.OVERLOADED, since=0.0, service="redis", direction="outbound", peer="b")
    kinds = [entry["kind"] for entry in logs]
    assert kinds[0] == kinds[1]
    assert len(set(kinds)) == 5


@pytest.mark.failure("21a")
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("reason", CloseReason)
def test_what_applications_choose_is_no_failure_and_a_clean_end_is_no_news(reason: CloseReason, trace: bool) -> None:
    stats = StreamStats(trace)
    stats.opened += 1
    clean, aborted = reason is CloseReason.FINISHED, reason is CloseReason.ABORTED
    assert stats.end(reason) == (trace or not clean)
    assert (stats.failed, stats.aborted) == (not clean and not aborted, aborted)


@pytest.mark.parametrize(
    ("reason", "level"),
    [(CloseReason.FINISHED, "debug"), (CloseReason.ABORTED, "info"), (CloseReason.LINK_LOST, "warning")],
)
def test_report(reason: CloseReason, level: str, logs: list[MutableMapping[str, Any]]) -> None:
    StreamStats().report(reason, since=0.0, service="redis", direction="inbound", peer=None, sent=7)
    [entry] = logs
    assert entry.pop("age_s") > 0
    assert entry == {
        "event": "stream ended",
        "log_level": level,
        "kind": ("redis", "inbound", None, reason),
        "reason": reason.label,
        "service": "redis",
        "direction": "inbound",
        "peer": None,
        "sent": 7,
    }


async def test_a_clean_end_is_told_only_where_it_is_traced() -> None:
    stats = StreamStats()
    stats.opened += 2
    assert not stats.end(CloseReason.FINISHED)
    stats.trace = True
    assert stats.end(CloseReason.FINISHED)
    assert (stats.open, stats.failed, stats.aborted) == (0, 0, 0)


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
