"""Control servers that know of each other by the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import structlog
import trio

from control.server import servers
from control.server.mirror import StoreMirror
from control.server.servers import SERVERS, ControlServers, ServerEntry, ServerRecord
from control.server.watching import MapWatchers
from control.store.base import Put, Store, StoreError
from control.store.sqlite import open_sqlite

pytestmark = pytest.mark.failure("31")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "EVERY", 0.02)


async def until(condition: object) -> None:
    with trio.fail_after(20):
        while not condition():  # type: ignore[operator]
            await trio.sleep(0.005)


async def records(store: Store) -> list[ServerRecord]:
    return [msgspec.json.decode(item.value, type=ServerRecord) for item in (await store.read(SERVERS)).items]


class Server:
    """As much of a control server as knows of others."""

    def __init__(self, store: Store, name: str) -> None:
        self.servers = ControlServers(name, f"{name}:7601", 100)
        self.watching = MapWatchers(100, servers=self.servers)
        self.count, self.rounds = 0, 0
        self.entry = ServerEntry(store, self.servers, lambda: self.count, self.over)
        self.mirror = StoreMirror(store, self.watching)
        self.scope = trio.CancelScope()

    def over(self) -> None:
        self.rounds += 1

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.mirror.run)
                await nursery.start(self.entry.run)
                task_status.started()


async def test_each_knows_what_the_others_have_and_who_has_stopped(store: Store, nursery: trio.Nursery) -> None:
    a, b = Server(store, "a"), Server(store, "b")
    assert a.servers.alone
    await nursery.start(a.run)
    await nursery.start(b.run)
    a.count = 9
    await until(lambda: b.servers.takes(0))
    assert not b.servers.takes(8), "that would change nothing"
    assert not a.servers.takes(9)
    assert not a.servers.alone
    found = sorted(await records(store), key=lambda each: each.name)
    assert found == [
        ServerRecord(name="a", address="a:7601", watchers=9, most=100),
        ServerRecord(name="b", address="b:7601", watchers=0, most=100),
    ]
    b.scope.cancel()
    await until(lambda: a.servers.alone)
    assert [each.name for each in await records(store)] == ["a"]
    nursery.cancel_scope.cancel()


async def test_nothing_is_written_while_nothing_changes(store: Store, nursery: trio.Nursery) -> None:
    a = Server(store, "a")
    await nursery.start(a.run)
    await until(lambda: a.rounds)
    before = (await store.read(SERVERS)).revision
    rounds = a.rounds
    await until(lambda: a.rounds > rounds + 2)
    assert (await store.read(SERVERS)).revision == before
    # However often the number changes: once in a while.
    rounds = a.rounds
    while a.rounds < rounds + 5:
        a.count += 1
        await trio.sleep(0)
    after = (await store.read(SERVERS)).revision
    assert after - before <= servers.ROUND * 6
    nursery.cancel_scope.cancel()


async def test_a_record_that_was_lost_is_made_again(store: Store, nursery: trio.Nursery) -> None:
    a, b = Server(store, "a"), Server(store, "b")
    await nursery.start(a.run)
    await nursery.start(b.run)
    await until(lambda: not b.servers.alone)
    (item,) = [each for each in (await store.read(SERVERS)).items if each.key == SERVERS + a.servers.id]
    with structlog.testing.capture_logs() as logs:
        await store.revoke(item.lease)
        await until(lambda: b.servers.alone)
        await until(lambda: not b.servers.alone)
    assert logs == []
    nursery.cancel_scope.cancel()


class Away:
    """A store that cannot be had."""

    epoch = "e"

    async def grant(self, ttl: float) -> int:
        raise StoreError("no member has answered")


async def test_without_the_store_rounds_go_on() -> None:
    a = Server(Away(), "a")  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(a.entry.run)
        await until(lambda: a.rounds > 1)
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_read_is_no_server(store: Store, nursery: trio.Nursery) -> None:
    a = Server(store, "a")
    await store.commit(put=[Put(f"{SERVERS}x", b"of another version"), Put(f"{SERVERS}y", b"\xff")])
    await nursery.start(a.run)
    await until(lambda: a.rounds)
    assert a.servers.alone
    await store.commit(put=[Put(f"{SERVERS}x", b'{"name":"x","address":"x:1","watchers":3,"most":9,"new":1}')])
    await until(lambda: not a.servers.alone)
    await store.commit(put=[Put(f"{SERVERS}x", b"[]")])
    await until(lambda: a.servers.alone)
    nursery.cancel_scope.cancel()


def test_it_says_once_that_it_lets_watchers_go_and_to_whom() -> None:
    made = ControlServers("a", "a:7601", 100)
    for name, count in (("b", 2), ("c", 30)):
        record = ServerRecord(name=name, address=f"{name}:7601", watchers=count, most=100)
        made.put(name, msgspec.json.encode(record))
    with structlog.testing.capture_logs() as logs:
        assert made.let_go(30, 0, 0) > 0
        assert made.let_go(29, 0, 0) == 0, "another one has more"
        made.put("c", None)
        assert made.let_go(29, 0, 0) > 0
        assert made.let_go(3, 0, 0) == 0
    assert [(each["watchers"], each["others"]) for each in logs] == [(30, {"b": 2, "c": 30})]


def test_who_has_no_room_is_not_counted() -> None:
    made = ControlServers("a", "a:7601", 100)
    made.put("b", msgspec.json.encode(ServerRecord(name="b", address="b:7601", watchers=10, most=10)))
    assert made.let_go(50, 0, 0) == 0


@pytest.mark.parametrize(
    ("listen", "came", "address"),
    [
        ("0.0.0.0:7601", [], "0.0.0.0:7601"),
        ("0.0.0.0:7601", ["10.0.0.1", "10.0.0.2"], "10.0.0.1:7601"),
        ("0.0.0.0:7601", ["127.0.0.1", "127.0.0.2", "10.0.0.2", "10.0.0.3"], "10.0.0.2:7601"),
        ("[::]:7601", ["::1", "fd00::1", "10.0.0.2"], "[fd00::1]:7601"),
        ("10.0.0.9:7601", ["10.0.0.1"], "10.0.0.9:7601"),
        ("127.0.0.1:7601", ["10.0.0.1"], "127.0.0.1:7601"),
    ],
)
def test_where_a_server_is_that_listens_on_all_addresses(listen: str, came: list[str], address: str) -> None:
    servers = ControlServers("a", listen, 100)
    for host in came:
        servers.reached(host)
    assert servers.record(3).address == address
    assert servers.addresses == ((address,) if came or listen[0] == "1" else ())
