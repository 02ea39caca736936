from __future__ import annotations

import trio

from proxy.telemetry.slices import SLICE, slices


async def test_everything_in_order_in_parts_of_one_size() -> None:
    found = [part async for part in slices(range(2 * SLICE + 1))]
    assert [len(part) for part in found] == [SLICE, SLICE, 1]
    assert [each for part in found for each in part] == list(range(2 * SLICE + 1))
    assert [part async for part in slices([])] == []


async def test_others_run_in_between() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async for _ in slices(range(10 * SLICE)):
            pass
        assert turns >= 5
        nursery.cancel_scope.cancel()
