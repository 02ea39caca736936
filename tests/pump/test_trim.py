"""Memory that was freed goes back to the system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from proxy.mux.slabpool import SlabPool
from proxy.pump import trim
from proxy.pump.budget import MemoryBudget
from tests.tools.sockets import PATIENCE

pytestmark = pytest.mark.failure("33")
MIB = 1 << 20
HELD = 64 * MIB


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim, "PAUSE", 0.01)


def resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def scattered() -> Iterator[list[bytearray]]:
    """Bytes as stalled streams hold them, with some that stay between those that go."""
    held = [bytearray(b"x") * 50_000 for _ in range(HELD // 50_000)]
    yield held
    held.clear()


async def until(what: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not what():
            await trio.sleep(0.01)


async def test_after_a_stall(scattered: list[bytearray]) -> None:
    budget, full = MemoryBudget(1 << 40), resident()
    async with trio.open_nursery() as nursery:
        await nursery.start(trim.run, budget, SlabPool())
        assert budget.take(HELD)
        await trio.testing.wait_all_tasks_blocked()
        del scattered[:-1:2]
        budget.give(HELD)
        await until(lambda: resident() < full - HELD // 3)
        nursery.cancel_scope.cancel()


async def test_after_slabs(scattered: list[bytearray]) -> None:
    full, pool = resident(), SlabPool(keep=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(trim.run, MemoryBudget(1 << 40), pool)
        await trio.testing.wait_all_tasks_blocked()
        del scattered[:-1:2]
        pool.give(pool.take())
        await until(lambda: resident() < full - HELD // 3)
        nursery.cancel_scope.cancel()


async def test_without_a_thread_the_next_time_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        asked.append(args)
        raise RuntimeError("can't start new thread")

    asked: list[object] = []
    budget = MemoryBudget(1 << 40)
    monkeypatch.setattr("trio._core._thread_cache.ThreadCache.start_thread_soon", refuse)
    async with trio.open_nursery() as nursery:
        await nursery.start(trim.run, budget, SlabPool())
        for times in (1, 2):
            assert budget.take(HELD)
            await trio.testing.wait_all_tasks_blocked()
            budget.give(HELD)
            await until(lambda: len(asked) == times)  # noqa: B023
        nursery.cancel_scope.cancel()
