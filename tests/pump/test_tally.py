"""Counting streams."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
import trio.testing

from proxy.errors import CloseReason
from proxy.pump.tally import LINES_AT_ONCE, Tally


def test_counts() -> None:
    tally = Tally()
    for _ in range(3):
        tally.opened += 1
    tally.end(CloseReason.FINISHED)
    tally.end(CloseReason.LINK_LOST)
    assert (tally.open, tally.opened, tally.failed) == (1, 3, 1)
    for reason in (CloseReason.NOT_ALLOWED, CloseReason.NOT_ALLOWED):
        tally.opened += 1
        tally.end(reason)
    assert tally.failures == {CloseReason.LINK_LOST: 1, CloseReason.NOT_ALLOWED: 2}
    assert tally.failed == 3


@pytest.mark.failure(18)
def test_who_makes_streams_fail_does_not_choose_how_much_is_written(logs: list[MutableMapping[str, Any]]) -> None:
    tally = Tally()
    streams = 10 * LINES_AT_ONCE
    for _ in range(streams):
        tally.opened += 1
        if tally.end(CloseReason.NOT_ALLOWED):
            tally.report(CloseReason.NOT_ALLOWED, since=0.0)
    assert tally.failures == {CloseReason.NOT_ALLOWED: streams}
    written = len(logs)
    tally.report(CloseReason.ABORTED, since=0.0)
    tally.report(CloseReason.ABORTED, since=0.0)
    assert written + sum(entry.get("unsaid", 0) for entry in logs) == streams
    assert "unsaid" not in logs[-1], "said once"


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("reason", CloseReason)
def test_what_applications_choose_is_no_failure_and_news_only_on_request(reason: CloseReason, trace: bool) -> None:
    tally = Tally(trace)
    tally.opened += 1
    expected = reason in (CloseReason.FINISHED, CloseReason.ABORTED)
    assert tally.end(reason) == (trace or not expected)
    assert tally.failed == (not expected)


@pytest.mark.parametrize(
    ("reason", "level"),
    [(CloseReason.FINISHED, "debug"), (CloseReason.ABORTED, "debug"), (CloseReason.LINK_LOST, "warning")],
)
def test_report(reason: CloseReason, level: str, logs: list[MutableMapping[str, Any]]) -> None:
    Tally().report(reason, since=0.0, service="redis", peer=None, sent=7)
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
    tally = Tally()
    assert tally.quiet == {CloseReason.FINISHED, CloseReason.ABORTED}
    tally.trace = True
    assert not tally.quiet
    tally.trace = False
    tally.opened += 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tally.idle)
        await trio.testing.wait_all_tasks_blocked()
        assert not tally.quiet
        tally.end(CloseReason.FINISHED)
    assert tally.quiet


async def test_idle() -> None:
    tally = Tally()
    await tally.idle()
    tally.opened += 1
    tally.opened += 1
    done = trio.Event()

    async def wait() -> None:
        await tally.idle()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        tally.end(CloseReason.FINISHED)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        tally.end(CloseReason.FINISHED)
        await done.wait()
