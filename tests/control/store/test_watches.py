from __future__ import annotations

import pytest
import trio

from control.store import watches
from control.store.base import Commit, Compacted, KeyChange, StoreError
from control.store.watches import StoreWatch


def commit(revision: int, *keys: str, size: int = 0) -> Commit:
    return Commit(revision, tuple(KeyChange(key, bytes(size)) for key in keys))


async def test_only_its_own_once_and_in_order() -> None:
    watch = StoreWatch("a/", 3)
    for revision in (2, 3, 4, 4, 6, 5, 7):
        watch.offer(commit(revision, "a/1", "b"))
    watch.offer(commit(8, "b"))
    assert [await watch.receive() for _ in range(3)] == [commit(revision, "a/1") for revision in (4, 6, 7)]
    assert watch.seen == 8


async def test_history_comes_in_front() -> None:
    watch = StoreWatch("", 3)
    watch.offer(commit(6, "new"))
    watch.offer(commit(7, "new"))
    watch.begin([commit(4, "old"), commit(6, "new")])
    assert [(await watch.receive()).revision for _ in range(3)] == [4, 6, 7]


async def test_without_history_nothing_comes_twice() -> None:
    watch = StoreWatch("a", 3)
    watch.offer(commit(6, "b"))
    watch.begin([])
    watch.offer(commit(5, "a"))
    watch.offer(commit(7, "a"))
    assert await watch.receive() == commit(7, "a")


@pytest.mark.failure(19, 20)
async def test_who_does_not_take_is_ended() -> None:
    size = watches.cost(commit(1, "a", size=1000))
    watch = StoreWatch("", 0, limit=3 * size)
    for revision in range(1, 4):
        watch.offer(commit(revision, "a", size=1000))
    assert await watch.receive() == commit(1, "a", size=1000)
    watch.offer(commit(4, "a", size=1000))
    assert not watch.ended
    watch.offer(commit(5, "a", size=1000))
    assert watch.ended
    for _ in range(2):
        with pytest.raises(Compacted, match="too far behind"):
            await watch.receive()


async def test_one_large_commit_fits() -> None:
    watch = StoreWatch("", 0, limit=10)
    watch.offer(commit(1, "a", size=1000))
    assert (await watch.receive()).revision == 1
    watch.begin([commit(2, "a"), commit(3, "a")])
    assert watch.ended


async def test_who_waits_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    watch = StoreWatch("", 0)
    got: list[int] = []

    async def receive() -> None:
        async for commit in watch:
            got.append(commit.revision)

    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="gone")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for revision in range(1, 4):
                await trio.testing.wait_all_tasks_blocked()
                watch.offer(commit(revision, "a"))
            await trio.testing.wait_all_tasks_blocked()
            watch.end(StoreError("gone"))
            watch.end(Compacted("later"))
    assert got == [1, 2, 3]


async def test_cancelled_it_loses_nothing() -> None:
    watch = StoreWatch("", 0)
    watch.offer(commit(1, "a"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await watch.receive()
    assert (await watch.receive()).revision == 1
    await watch.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await watch.receive()
