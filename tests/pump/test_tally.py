"""What derived classes count is in the tests of streamstats and streamcounts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxy.errors import CloseReason
from proxy.pump.stalls import Stalls
from proxy.pump.tally import Countdown, Opened, StreamTally, Totals
from tests.pump.agents import mesh
from tests.pump.rig import until


class Told(Totals):
    none = 0

    def none_open(self) -> None:
        self.none += 1


def test_totals_by_reason_and_whether_the_end_is_logged() -> None:
    totals = Told()
    totals.opened = 4
    assert [totals.end(reason) for reason in (CloseReason.FINISHED, CloseReason.ABORTED)] == [False, True]
    assert [totals.end(CloseReason.LINK_LOST) for _ in range(2)] == [True, True]
    assert (totals.ended, totals.aborted, totals.failures) == (4, 1, {CloseReason.LINK_LOST: 2})
    totals.trace = True
    assert totals.end(CloseReason.FINISHED)


def test_that_none_is_open_is_told_to_who_waits_only() -> None:
    totals = Told()
    totals.opened = 2
    totals.awaited = 1
    totals.end(CloseReason.FINISHED)
    assert totals.none == 0
    totals.end(CloseReason.FINISHED)
    assert totals.none == 1
    totals.awaited = 0
    totals.opened += 1
    totals.end(CloseReason.FINISHED)
    assert totals.none == 1


def test_a_tap_hears_instead_of_the_access_log() -> None:
    totals = Told()
    assert totals.log_of("redis") is None
    totals.access, totals.taps["web"] = SimpleNamespace(), SimpleNamespace()  # type: ignore[assignment]
    assert (totals.log_of("redis"), totals.log_of("web")) == (totals.access, totals.taps["web"])


async def test_bytes_are_counted_once() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        caller = hosts.call()
        await caller.send(b"hello")
        await (await service.accept()).send(b"bye")
        assert await caller.read(3) == b"bye"
        pool = hosts.agents["host-a"].pools["host-b"]
        await until(lambda: pool.streams == 1, "the stream")
        [lane] = [lane for session in pool.sessions for lane in session.streams.values()]
        tally = StreamTally()
        tally.look(lane)
        tally.look(lane)
        assert (tally.sent, tally.received, sum(tally.ended)) == (5, 3, 0)
        tally.end(lane, CloseReason.ABORTED)
        assert (tally.sent, tally.received, tally.ended[CloseReason.ABORTED]) == (5, 3, 1)


def test_plain_numbers() -> None:
    assert (Opened().opened, Countdown(7).left) == (0, 7)


def test_who_counts_says_what_is_to_become_of_the_rest() -> None:
    with pytest.raises(NotImplementedError):
        Totals().none_open()
    with pytest.raises(NotImplementedError):
        StreamTally().stalled(Stalls())
