"""Counting streams."""

from __future__ import annotations

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


@pytest.mark.failure("21a")
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("reason", CloseReason)
def test_what_applications_choose_is_no_failure_and_a_clean_end_is_no_news(reason: CloseReason, trace: bool) -> None:
    stats = StreamStats(trace)
    stats.opened += 1
    clean, aborted = reason is CloseReason.FINISHED, reason is CloseReason.ABORTED
    assert stats.end(reason) == (trace or not clean)
    assert (stats.failed, stats.aborted) == (not clean and not aborted, aborted)


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
