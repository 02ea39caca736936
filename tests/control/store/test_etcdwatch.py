"""A watch goes on whatever happens to members: no gap, no double."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from control.store import watches
from control.store.base import Commit, Compacted, Put, Store, StoreError
from control.store.etcd import open_etcd
from control.store.gateway import EtcdAccess
from tests.control.store.etcds import Etcd, Member

pytestmark = pytest.mark.etcd

PATIENCE = 40.0
WRITERS = 4


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path, members=3) as running:
        yield running


class Traffic:
    """Writers that go on whatever happens, and a watch of all that they do.

    Attributes:
        acknowledged: (revision, key, value) of each commit that returned.
        seen: what the watch gave.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged: list[tuple[int, str, bytes]] = []
        self.seen: list[Commit] = []
        self.unknown = 0
        self._more = trio.Event()

    async def write(self, key: str) -> None:
        number = 0
        while True:
            number += 1
            value = b"%d" % number
            try:
                revision = await self.store.commit(put=[Put(key, value)])
            except StoreError:
                self.unknown += 1
                continue
            self.acknowledged.append((revision, key, value))
            self._news()

    async def watch(self, after: int) -> None:
        async with self.store.watch("", after) as channel:
            async for commit in channel:
                self.seen.append(commit)
                self._news()

    def _news(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def until(self, acknowledged: int) -> None:
        """Until so many more commits were acknowledged, and seen."""
        count = len(self.acknowledged) + acknowledged
        while len(self.acknowledged) < count or self.seen[-1].revision < max(self.acknowledged)[0]:
            await self._more.wait()

    async def check(self) -> None:
        """What was seen is all that happened, once and in order."""
        revisions = [commit.revision for commit in self.seen]
        assert revisions == sorted(set(revisions))
        changes = {(commit.revision, *change) for commit in self.seen for change in commit.changes}
        assert changes >= set(self.acknowledged)
        # Each writer counts: a gap would be a number that is missing. One whose outcome was not known may be.
        values = [change for commit in self.seen for change in commit.changes]
        assert len(values) == len(set(values))
        assert len(values) - len(self.acknowledged) <= self.unknown
        last = {key: value for commit in self.seen for key, value in commit.changes}
        assert last == {item.key: item.value for item in (await self.store.read("")).items}


async def run_while(cluster: Etcd, first: Member, timeout: float, disturb: str) -> None:
    others = [member.client for member in cluster.members if member is not first]
    access = EtcdAccess((first.client, *others), timeout=timeout)
    with trio.fail_after(PATIENCE):
        async with open_etcd(access) as store:
            traffic = Traffic(store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.watch, (await store.read("")).revision)
                async with trio.open_nursery() as writers:
                    for number in range(WRITERS):
                        writers.start_soon(traffic.write, f"writer/{number}")
                    await traffic.until(100)
                    if disturb == "kill":
                        first.kill()
                    else:
                        first.signal(signal.SIGSTOP)
                    await traffic.until(100)
                    if disturb == "kill":
                        cluster.start(first)
                    else:
                        first.signal(signal.SIGCONT)
                    await traffic.until(50)
                    writers.cancel_scope.cancel()
                # Commits that were cancelled may have happened.
                traffic.unknown += WRITERS
                last = await store.commit(put=[Put("writer/end", b"end")])
                traffic.acknowledged.append((last, "writer/end", b"end"))
                await traffic.until(0)
                nursery.cancel_scope.cancel()
            await traffic.check()


async def test_the_leader_is_killed(cluster: Etcd) -> None:
    """It is the member that is asked and watched, too."""
    leader = await trio.to_thread.run_sync(cluster.leader)
    await run_while(cluster, leader, 5.0, "kill")


async def test_the_member_that_is_watched_hangs(cluster: Etcd) -> None:
    """Its connections stay up, and it says nothing."""
    leader = await trio.to_thread.run_sync(cluster.leader)
    follower = next(member for member in cluster.members if member is not leader)
    await run_while(cluster, follower, 1.0, "stop")


async def test_a_member_without_a_leader_is_left(cluster: Etcd) -> None:
    """Two of three gone: nothing can be written, nothing happens, and it goes on when they are back."""
    first, *others = cluster.members
    access = EtcdAccess((first.client,), timeout=5.0)
    with trio.fail_after(PATIENCE):
        async with open_etcd(access) as store:
            revision = await store.commit(put=[Put("a", b"1")])
            async with store.watch("", revision) as watch:
                for member in others:
                    member.kill()
                async with trio.open_nursery() as nursery:

                    async def back() -> None:
                        await trio.to_thread.run_sync(cluster.leaderless, first)
                        for member in others:
                            cluster.start(member)

                    nursery.start_soon(back)
                    while True:
                        try:
                            revision = await store.commit(put=[Put("a", b"2")])
                            break
                        except StoreError:
                            continue
                commit = await watch.receive()
                while commit.revision < revision:
                    commit = await watch.receive()
                assert commit.revision == revision


async def test_nothing_to_watch(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd:
        async with open_etcd(EtcdAccess(etcd.endpoints, timeout=0.3)) as store:
            async with store.watch("", (await store.read("")).revision) as watch:
                etcd.members[0].kill()
                with trio.fail_after(PATIENCE), pytest.raises(StoreError, match="could be watched for 0.9 s"):
                    await watch.receive()


async def test_compacted_while_it_was_away(tmp_path: Path) -> None:
    """The member comes back, and has forgotten what the watch has not seen."""
    with Etcd(tmp_path) as etcd:
        async with open_etcd(EtcdAccess(etcd.endpoints)) as store:
            revision = (await store.read("")).revision
            async with store.watch("", revision) as watch:
                last = await store.commit(put=[Put("a", b"")])
                assert (await watch.receive()).revision == last
                # As if the member had gone before it sent that.
                assert isinstance(watch, watches.StoreWatch)
                watch.seen = revision
                etcd.call("/v3/kv/compaction", {"revision": str(last)})
                etcd.members[0].kill()
                etcd.start(etcd.members[0])
                with trio.fail_after(PATIENCE), pytest.raises(Compacted, match="read everything again"):
                    await watch.receive()


@pytest.mark.failure(19, 20)
async def test_who_does_not_take_is_ended(access: EtcdAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches.StoreWatch.__init__, "__defaults__", (10_000,))
    async with open_etcd(access) as store:
        async with store.watch("", (await store.read("")).revision) as watch:
            for _ in range(20):
                await store.commit(put=[Put("a", bytes(1000))])
            with trio.fail_after(PATIENCE), pytest.raises(Compacted, match="too far behind"):
                while True:
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    await watch.receive()
