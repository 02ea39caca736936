"""Whether the pump's loop turns."""

from __future__ import annotations

import pytest
import trio

from proxy.pump.budget import MemoryBudget
from proxy.pump.heartbeat import Heartbeat
from proxy.pump.loop import Pump
from proxy.pump.turn import LaneReader
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.failure("26")


async def test_a_pump_that_turns_answers_and_one_that_does_not_does_not() -> None:
    before = open_fds()
    pump = Pump(MemoryBudget(1 << 20, 1 << 20), LaneReader())
    heart = Heartbeat(pump)
    with trio.move_on_after(0.05) as patience:
        await heart.beat()
    assert patience.cancelled_caught, "it does not run"
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        for _ in range(3):
            await heart.beat()
        nursery.start_soon(heart.beat)
        await heart.beat()  # two at a time
        nursery.cancel_scope.cancel()
    heart.close()
    pump.shut_down()
    assert not fds_since(before)


async def test_asked_more_often_than_it_can_take() -> None:
    pump = Pump(MemoryBudget(1 << 20, 1 << 20), LaneReader())
    heart = Heartbeat(pump)
    heart._ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            heart._ours.send(bytes(4096))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart.beat)
        await nursery.start(pump.run)
        await heart.beat()
        nursery.cancel_scope.cancel()
    heart.close()
    pump.shut_down()
