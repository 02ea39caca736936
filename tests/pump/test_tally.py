"""Counting streams."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import trio
import trio.testing

from proxy.errors import CloseReason
from proxy.pump.tally import Tally


def test_counts() -> None:
    tally = Tally()
    for _ in range(3):
        tally.begin()
    tally.end(CloseReason.FINISHED)
    tally.end(CloseReason.LINK_LOST)
    assert (tally.open, tally.opened, tally.failed) == (1, 3, 1)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("reason", CloseReason)
def test_what_applications_choose_is_no_failure_and_news_only_on_request(reason: CloseReason, trace: bool) -> None:
    tally = Tally(trace)
    tally.begin()
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


async def test_idle() -> None:
    tally = Tally()
    await tally.idle()
    tally.begin()
    tally.begin()
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
