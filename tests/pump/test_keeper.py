from __future__ import annotations

import trio

from proxy.mux.frames import FrameKind
from proxy.mux.replay import ReplayBuffer
from proxy.pump.budget import MemoryBudget
from proxy.pump.keeper import Keeper
from proxy.pump.loop import Pump
from proxy.pump.turn import LaneReader


async def test_bytes_stay_where_they_are_and_are_told_of_once_a_turn() -> None:
    pump = Pump(MemoryBudget(1 << 20), LaneReader())
    out = ReplayBuffer(pump.slabs, pump.touched, pump.later, 1 << 20)
    told: list[int] = []
    out.flusher = Keeper(lambda: told.append(out.unsent))
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        for _ in range(2):
            out.put(FrameKind.PING, 0, bytes(8))
        pump.settle()
        assert (told, out.sent) == ([out.end], 0)
        nursery.cancel_scope.cancel()
    out.close()
    pump.shut_down()
