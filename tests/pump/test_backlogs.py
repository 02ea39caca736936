"""Who is tried when; with real sockets in tests/pump/test_connecting.py."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from proxy.pump.backlogs import LATER, SOON, FullBacklogs
from proxy.pump.deadlines import Deadlines

pytestmark = pytest.mark.failure("21b-e")


class Waiter:
    """One for which there is room after some tries."""

    def __init__(self, tries: int) -> None:
        self.left = tries
        self.pending = True
        self.times: list[float] = []

    def try_again(self) -> bool:
        self.times.append(trio.current_time())
        self.left -= 1
        self.pending = self.left > 0
        return not self.pending


async def test_a_full_one_is_tried_less_and_less_often(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    deadlines = Deadlines(lambda: None)
    await nursery.start(deadlines.run)
    backlogs = FullBacklogs(deadlines)
    waiter, behind = Waiter(9), Waiter(1)
    assert backlogs.add("/s", waiter) is None
    assert backlogs.add("/s", behind) is None
    assert "/s" in backlogs
    await trio.sleep(1)
    gaps = [after - before for before, after in zip(waiter.times, waiter.times[1:], strict=False)]
    assert gaps == pytest.approx([2 * SOON, 4 * SOON, 8 * SOON, 16 * SOON, LATER, LATER, LATER, LATER])
    assert behind.times == [waiter.times[-1]], "the next one at once, as there may be more room"
    assert "/s" not in backlogs
    assert backlogs.waiting == 0
    nursery.cancel_scope.cancel()


async def test_a_bug_in_who_waits(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    class Broken(Waiter):
        def try_again(self) -> bool:
            super().try_again()
            raise ValueError("a bug")

    deadlines = Deadlines(lambda: None)
    await nursery.start(deadlines.run)
    backlogs = FullBacklogs(deadlines)
    backlogs.add("/s", Broken(1))
    behind = Waiter(1)
    backlogs.add("/s", behind)
    await trio.sleep(1)
    assert (len(behind.times), backlogs.waiting) == (1, 0)
    nursery.cancel_scope.cancel()
