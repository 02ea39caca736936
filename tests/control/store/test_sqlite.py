"""What is the SQLite store's own; what every store promises is in test_base.py."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from control.base.errors import StartError
from control.store import sqlite
from control.store.base import Compacted, Condition, KeyChange, LeaseGone, Put, StoreError
from control.store.database import Database
from control.store.sqlite import open_sqlite

DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
WRITER = str(Path(__file__).with_name("writer.py"))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


class Slow:
    """A disk that a test holds: calls on the file wait, in their thread, until it lets them go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = 0
        self.go = threading.Event()
        self.entered = threading.Event()
        monkeypatch.setattr(Database, "begin", self._wrapped(Database.begin))

    def _wrapped(self, begin: Callable[[Database], None]) -> Callable[[Database], None]:
        def wait(database: Database) -> None:
            self.batches += 1
            self.entered.set()
            assert self.go.wait(20)
            begin(database)

        return wait


async def test_what_was_acknowledged_is_there_again(path: str) -> None:
    async with open_sqlite(path) as store:
        epoch = store.epoch
        lease = await store.grant(30)
        revision = await store.commit(put=[Put("a", b"1", lease)])
    async with open_sqlite(path) as store:
        assert store.epoch == epoch
        await store.keep_alive(lease)
        async with store.watch("", revision - 1) as watch:
            assert (await watch.receive()).revision == revision
    assert os.listdir(os.path.dirname(path)) == ["store.db"]


async def test_commits_that_wait_share_a_transaction(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(path) as store:
        slow = Slow(monkeypatch)
        revisions: list[int] = []

        async def put(number: int) -> None:
            revisions.append(await store.commit(put=[Put(f"k/{number}", b"")]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, 0)
            await trio.to_thread.run_sync(slow.entered.wait)
            for number in range(1, 100):
                nursery.start_soon(put, number)
            await trio.testing.wait_all_tasks_blocked()
            slow.go.set()
        assert slow.batches == 2
        assert sorted(revisions) == list(range(2, 102))


async def test_one_conflict_in_a_batch_is_that_calls_own(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(path) as store:
        slow = Slow(monkeypatch)
        won: list[int] = []

        async def put(number: int) -> None:
            try:
                await store.commit(when=[Condition("a", 0)], put=[Put("a", b""), Put(f"b/{number}", b"")])
            except sqlite.Conflict:
                return
            won.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(put, number)
            await trio.testing.wait_all_tasks_blocked()
            slow.go.set()
        assert len(won) == 1
        assert [item.key for item in (await store.read("")).items] == ["a", f"b/{won[0]}"]


async def test_cancelled_before_its_turn_it_has_not_happened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(path) as store:
        slow = Slow(monkeypatch)
        ended: list[str] = []

        async def put(key: str, scope: trio.CancelScope) -> None:
            with scope:
                await store.commit(put=[Put(key, b"")])
            ended.append(key)

        under_way, waiting = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "a", under_way)
            await trio.to_thread.run_sync(slow.entered.wait)
            nursery.start_soon(put, "b", waiting)
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel()
            under_way.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == ["b"]
            slow.go.set()
        assert [item.key for item in (await store.read("")).items] == ["a"]


async def test_a_full_disk_is_an_error_while_it_is_full(path: str) -> None:
    async with open_sqlite(path) as store:
        revision = await store.commit(put=[Put("a", b"")])
        run = store._database._connection.execute
        run("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="the disk is full"):
            await store.commit(put=[Put("big", bytes(1 << 18))])
        assert (await store.read("")).revision == revision
        async with store.watch("", revision) as watch:
            run("PRAGMA max_page_count = 1000000")
            assert await store.commit(put=[Put("big", bytes(1 << 18))]) == revision + 1
            assert (await watch.receive()).revision == revision + 1


async def test_a_bug_hangs_nobody(path: str) -> None:
    def bug(database: Database) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_sqlite(path) as store:
            await store._ask(bug)
    async with open_sqlite(path):
        pass


async def test_the_callers_error_comes_as_it_is(path: str) -> None:
    with pytest.raises(KeyError):
        async with open_sqlite(path):
            raise KeyError
    async with open_sqlite(path):
        pass


async def test_leaving_ends_what_waits(path: str) -> None:
    async with AsyncExitStack() as later:
        async with open_sqlite(path) as store:
            watch = await later.enter_async_context(store.watch("", 1))
        with pytest.raises(StoreError, match="store.db: the store is closed"):
            await watch.receive()
    with pytest.raises(StoreError, match="closed"):
        await store.read("")


async def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no such directory"):
        async with open_sqlite(str(tmp_path / "none" / "store.db")):
            raise AssertionError


async def test_no_life_is_lost_while_the_process_is_stopped(path: str, mock_clock: MockClock) -> None:
    async with open_sqlite(path) as store:
        lease = await store.grant(15)
        revision = await store.commit(put=[Put("a", b"", lease)])
        async with store.watch("", revision) as watch:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(100)
            await trio.testing.wait_all_tasks_blocked()
            await store.keep_alive(lease)
            mock_clock.jump(15)
            assert (await watch.receive()).changes == (KeyChange("a", None),)
        with pytest.raises(LeaseGone):
            await store.keep_alive(lease)


async def test_a_restart_gives_the_whole_ttl_and_a_kept_lease_writes_nothing(path: str, mock_clock: MockClock) -> None:
    async with open_sqlite(path) as store:
        lease = await store.grant(15)
        revision = await store.commit(put=[Put("a", b"", lease)])
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(14)
        size = os.path.getsize(f"{path}-wal")
        await store.keep_alive(lease)
        await store.read("")
        assert os.path.getsize(f"{path}-wal") == size
        mock_clock.jump(14)
    async with open_sqlite(path) as store, store.watch("", revision) as watch:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(14.9)
        await trio.testing.wait_all_tasks_blocked()
        await store.read("")
        assert (await store.read("")).items
        mock_clock.jump(0.1)
        assert (await watch.receive()).changes == (KeyChange("a", None),)


async def test_leases_that_are_due_end_when_the_disk_works_again(
    path: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_sqlite(path) as store:
        lease = await store.grant(15)
        revision = await store.commit(put=[Put("a", b"", lease)])
        send, tried = trio.open_memory_channel[tuple[int, ...]](10)
        token = trio.lowlevel.current_trio_token()

        def fails(database: Database, *leases: int) -> None:
            trio.from_thread.run_sync(send.send_nowait, leases, trio_token=token)
            raise StoreError("the disk does not write")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "revoke", fails)
            for jump in (15, sqlite.RETRY):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(jump)
                assert await tried.receive() == (lease,)
                # Behind the try, so that what comes now is another one.
                await store.read("")
        with pytest.raises(LeaseGone):
            await store.keep_alive(lease)
        async with store.watch("", revision) as watch:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(sqlite.RETRY)
            assert (await watch.receive()).changes == (KeyChange("a", None),)


async def test_a_backup_while_writes_go_on(path: str, tmp_path: Path) -> None:
    async with open_sqlite(path) as store, trio.open_nursery() as nursery:

        async def write() -> None:
            while True:
                await store.commit(put=[Put("a", b"x" * 100), Put("b", b"x" * 100)])

        nursery.start_soon(write)
        await store.commit(put=[Put("c", b"")])
        await store.backup(str(tmp_path / "copy.db"))
        with pytest.raises(StoreError, match="exists already"):
            await store.backup(str(tmp_path / "copy.db"))
        nursery.cancel_scope.cancel()
    async with open_sqlite(str(tmp_path / "copy.db")) as copy:
        view = await copy.read("")
        assert [item.key for item in view.items] in (["a", "b", "c"], ["c"])
        assert copy.epoch != store.epoch
        with pytest.raises(Compacted):
            async with copy.watch("", view.revision + 1):
                raise AssertionError


async def test_the_restore_of_the_docs(path: str) -> None:
    """A copy of the file that is put in place, and the statement that docs/operations.md gives."""
    (statement,) = re.findall(r'sqlite3 \S+ "(.*)"', DOCS.read_text())
    async with open_sqlite(path) as store:
        revision = await store.commit(put=[Put("a", b"")])
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute(statement)
    async with open_sqlite(path) as restored:
        assert restored.epoch != store.epoch
        assert (await restored.read("")).revision == revision


FULL = """
import os, sys, trio
from control.store.base import Put, StoreError
from control.store.sqlite import open_sqlite

async def main():
    async with open_sqlite(sys.argv[1] + "/store.db") as store:
        with open(sys.argv[1] + "/other", "wb") as other:
            other.write(bytes(1 << 20))
        kept = 0
        try:
            while kept < 100:
                await store.commit(put=[Put(f"k/{kept}", bytes(50_000))])
                kept += 1
        except StoreError as error:
            print(error)
        print(len((await store.read("k/")).items) == kept)
        os.unlink(sys.argv[1] + "/other")
        await store.commit(put=[Put("k", bytes(50_000))])
    async with open_sqlite(sys.argv[1] + "/store.db") as store:
        print(len((await store.read("k")).items) == kept + 1)

trio.run(main)
"""


@pytest.mark.netns
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    command = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1"'
    argv = ["unshare", "-m", "sh", "-c", command, "sh", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{tmp_path}/store.db: the disk is full", "True", "True"], done.stderr


REOPENED = """
import os, sys, trio
from control.store.base import Put, StoreError
from control.store.sqlite import open_sqlite

path = sys.argv[1] + "/store.db"

def fill():
    with open(sys.argv[1] + "/other", "wb", buffering=0) as other:
        for size in (4096, 1):
            try:
                while True:
                    other.write(bytes(size))
            except OSError:
                pass

async def killed():
    async with open_sqlite(path) as store:
        await store.commit(put=[Put("a", b"1"), Put("b", b"", await store.grant(60))])
        fill()
        os._exit(0)

async def main():
    if sys.argv[2] == "stopped":
        async with open_sqlite(path) as store:
            await store.commit(put=[Put("a", b"1"), Put("b", b"", await store.grant(60))])
        fill()
    async with open_sqlite(path) as store:
        found = await store.read("")
        print([item.key for item in found.items])
        async with store.watch("", found.revision) as commits:
            await store.keep_alive(found.items[1].lease)
            try:
                await store.commit(put=[Put("c", bytes(5000))])
            except StoreError as error:
                print(error)
            os.unlink(sys.argv[1] + "/other")
            await store.commit(put=[Put("c", bytes(5000))])
            print((await commits.receive()).changes[0].key)

if sys.argv[2] == "killed":
    if not os.fork():
        trio.run(killed)
    os.wait()
trio.run(main)
"""


@pytest.mark.netns
@pytest.mark.failure("30a")
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_on_a_full_disk_a_store_that_is_there_can_be_read(tmp_path: Path, how: str) -> None:
    command = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    argv = ["unshare", "-m", "sh", "-c", command, "sh", str(tmp_path), sys.executable, REOPENED, how]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    said, *told = [line for line in done.stdout.splitlines() if line]
    assert "the disk is full: what the store knows is served" in said, done.stdout + done.stderr
    assert told == ["['a', 'b']", f"{tmp_path}/store.db: the disk is full", "c"], done.stderr


def test_killed_fifty_times_it_loses_nothing(path: str) -> None:
    """Each time at another moment of a transaction: eight tasks write without a pause."""
    chance = random.Random(4)
    acknowledged: dict[int, int] = {}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, WRITER, path], **pipes) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            for _ in range(50):
                writer.stdin.write("go\n")
                writer.stdin.flush()
                pid = int(writer.stdout.readline())
                left = chance.randrange(1, 60)
                while (line := writer.stdout.readline()) != "over\n":
                    task, number = map(int, line.split())
                    acknowledged[task] = number
                    left -= 1
                    if left == 0:
                        os.kill(pid, signal.SIGKILL)
                assert left <= 0, "it ended by itself"
                whole(path, acknowledged)
        finally:
            writer.stdin.close()
    assert sum(acknowledged.values()) > 500


def whole(path: str, acknowledged: dict[int, int]) -> None:
    """The file opens, holds what was acknowledged, each commit as a whole, and a history without a gap."""
    database = Database(path)
    try:
        items = {item.key: int(item.value[:8]) for item in database.read("").items}
        assert all(items[f"task/{task}"] >= number for task, number in acknowledged.items())
        assert all(items[f"beside/{task}"] == items[f"task/{task}"] for task in acknowledged)
        revisions = [commit.revision for commit in database.history("", 1)]
        assert revisions == list(range(2, database.revision() + 1))
    finally:
        database.close()
