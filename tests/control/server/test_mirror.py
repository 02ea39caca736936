from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import structlog
import trio

from control.api.mesh import RevokeRequest, ServiceOffer
from control.api.tokens import TokenRecord
from control.ca.issuing import CertificateRecord, Issuer
from control.ca.joining import HostEnrolment, RevocationRecord
from control.ca.keyfiles import KeyFiles
from control.server.mirror import REMEMBERED, StoreMirror
from control.server.watching import MapWatchers
from control.store.base import Compacted, Put, Store, StoreError
from control.store.sqlite import open_sqlite
from tests.control.server.conftest import MESH, SHOWN, hosts_on, knowing, record, shown


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield await knowing(opened)


async def until(condition: object) -> None:
    with trio.fail_after(20):
        while not condition():  # type: ignore[operator]
            await trio.sleep(0.005)


async def test_the_feed_follows_the_store(store: Store, nursery: trio.Nursery) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", "web"))
    watching = MapWatchers(10)
    await nursery.start(StoreMirror(store, watching).run)
    feed = watching.feed
    assert feed is not None
    assert feed.hosts == {"host-a": record("host-a", "web")}
    registered = await hosts.register(*shown("host-b"))
    await until(lambda: feed.revision == registered.revision)
    assert set(feed.hosts) == {"host-a", "host-b"}
    await hosts.leave("host-a", "1")
    await until(lambda: set(feed.hosts) == {"host-b"})
    nursery.cancel_scope.cancel()


class Failing:
    """A real store whose watches end as a test says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.epoch = store.epoch
        self.end = trio.Event()
        self.error: Exception | None = None
        self.watches = 0
        self.read = store.read

    def watch(self, prefix: str, after: int) -> object:
        outer = self
        inner = self._store.watch(prefix, after)

        class Watch:
            async def __aenter__(self) -> Watch:
                self.channel = await inner.__aenter__()
                outer.watches += 1
                return self

            async def __aexit__(self, *details: object) -> None:
                await inner.__aexit__(None, None, None)

            def __aiter__(self) -> Watch:
                return self

            async def __anext__(self) -> object:
                await outer.end.wait()
                outer.end = trio.Event()
                assert outer.error is not None
                raise outer.error

        return Watch()


@pytest.mark.failure(11)
async def test_a_lost_thread_is_taken_up_again_unnoticed(store: Store, nursery: trio.Nursery) -> None:
    failing, watching = Failing(store), MapWatchers(10)
    await nursery.start(StoreMirror(failing, watching).run)  # type: ignore[arg-type]
    feed = watching.feed
    assert feed is not None
    await hosts_on(store).register(*shown("host-a"))
    failing.error = Compacted()
    failing.end.set()
    await until(lambda: failing.watches == 2)
    assert watching.feed is feed
    news = feed.next(feed.revision - 1)
    assert news is not None
    assert set(feed.hosts) == {"host-a"}
    nursery.cancel_scope.cancel()


async def test_without_a_store_nothing_is_told(
    store: Store, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.server.mirror.RETRY", 0.05)
    failing, watching = Failing(store), MapWatchers(10)
    await nursery.start(StoreMirror(failing, watching).run)  # type: ignore[arg-type]
    told: list[bool] = []
    monkeypatch.setattr(watching, "publish", lambda: told.append(watching.feed is not None))
    failing.error = StoreError("no leader")
    failing.end.set()
    await until(lambda: failing.watches == 2)
    assert told == [False, True]
    nursery.cancel_scope.cancel()


@pytest.mark.failure("31")
async def test_a_revoked_host_has_not_vanished_whatever_of_it_is_revoked(store: Store, nursery: trio.Nursery) -> None:
    """A token only, a certificate only. And a revocation is no reason to be silent about others."""
    hosts, watching = hosts_on(store), MapWatchers(10)
    enrolment = HostEnrolment(store, Issuer(store, KeyFiles("/nowhere"), mesh=MESH))
    await nursery.start(StoreMirror(store, watching).run)
    feed = watching.feed
    assert feed is not None
    token = TokenRecord(host="host-t", hash="", expires=4e9)
    await store.commit(put=[Put("tokens/t1", msgspec.json.encode(token))])
    for key, host in (("certificates/c1", "host-c"), (SHOWN.keys[0], "host-x")):
        certificate = CertificateRecord(host=host, issued=1.0, expires=4e9, issuer="")
        await store.commit(put=[Put(key, msgspec.json.encode(certificate), await store.grant(60))])
    for number, name in enumerate(("host-t", "host-c", "host-v")):
        await hosts.register(*shown(name, address=f"10.77.0.{number + 1}:7600"))
    with structlog.testing.capture_logs() as logs:
        for name in ("host-t", "host-c"):
            await enrolment.revoke(RevokeRequest(host=name))
        await until(lambda: set(feed.hosts) == {"host-v"})
        revoked = RevocationRecord(host="host-x", at=1.0, expires=4e9)
        await store.commit(put=[Put("revoked/c2", msgspec.json.encode(revoked))], delete=["hosts/host-v"])
        await until(lambda: not feed.hosts)
    nursery.cancel_scope.cancel()
    assert [each["host"] for each in logs if "vanished" in each["event"]] == ["host-v"]
    assert [each["host"] for each in logs if each["event"] == "host revoked"] == ["host-t", "host-c"]


@pytest.mark.failure("31")
async def test_who_goes_while_the_store_cannot_be_watched_leaves_a_line_too(
    store: Store, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is known to have left."""
    monkeypatch.setattr("control.server.mirror.RETRY", 0.05)
    failing, watching, hosts = Failing(store), MapWatchers(10), hosts_on(store)
    for number, name in enumerate(("host-l", "host-s", "host-v", "host-w")):
        await hosts.register(*shown(name, address=f"10.77.0.{number + 1}:7600"))
    (left,) = (await store.read("hosts/host-l")).items
    await nursery.start(StoreMirror(failing, watching).run)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        for number, (error, gone) in enumerate(((StoreError("no leader"), ["host-v"]), (Compacted(), ["host-w"]))):
            left_too = ["hosts/host-l"] if number == 0 else []
            put = [Put("left/host-l", b"", left.lease)] if left_too else []
            await store.commit(put=put, delete=[*left_too, *(f"hosts/{each}" for each in gone)])
            failing.error = error
            failing.end.set()
            await until(lambda number=number: failing.watches == number + 2)
    nursery.cancel_scope.cancel()
    told = [(each["host"], each["address"]) for each in logs if each["event"].startswith("host has ")]
    assert told == [("host-v", "10.77.0.3:7600"), ("host-w", "10.77.0.4:7600")]


def test_records_are_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(record("a", "b")))["services"] == [{"name": "b"}]


@pytest.mark.parametrize("key", ["hosts/host-b", "ca/state"])
async def test_what_cannot_be_read_is_told_by_no_map_and_ends_nothing(
    store: Store, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("control.server.mirror.RETRY", 0.01)
    await hosts_on(store).register(*shown("host-a"))
    watching = MapWatchers(10)
    await nursery.start(StoreMirror(store, watching).run)
    await store.commit(put=[Put(key, b"of another version")])
    await until(lambda: watching.feed is None)
    await store.commit(delete=[key])
    await until(lambda: watching.feed is not None)
    assert watching.feed is not None
    assert set(watching.feed.hosts) == {"host-a"}
    nursery.cancel_scope.cancel()


@pytest.mark.failure("31")
async def test_who_vanishes_and_what_is_offered_leaves_a_line(store: Store, nursery: trio.Nursery) -> None:
    brief, hosts, watching = hosts_on(store, lease=1.0), hosts_on(store), MapWatchers(10)
    now = 5000.0
    mirror = StoreMirror(store, watching, lambda: now)
    await nursery.start(mirror.run)
    feed = watching.feed
    assert feed is not None
    with structlog.testing.capture_logs() as logs:
        await brief.register(*shown("host-v", "db", address="10.77.0.9:7600"))
        await brief.register(*shown("host-w", address="10.77.0.8:7600"))
        await hosts.register(*shown("host-l", "web"))
        await hosts.register(*shown("host-r", address="10.77.0.7:7600"))
        await hosts.leave("host-l", "1")
        await hosts.remove("host-r")
        await hosts.register(*shown("host-s", "web", "old", address="10.77.0.6:7600"))
        await hosts.register(*shown("host-s", "web", "new", address="10.77.0.6:7600"))
        await until(lambda: set(feed.hosts) == {"host-s"})
    gone = {each.record.name: (each.record.services, each.at) for each in mirror.gone()}
    assert gone == {"host-v": ((ServiceOffer(name="db"),), now), "host-w": ((), now)}
    await hosts.register(*shown("host-v", address="10.77.0.9:7600"))
    await until(lambda: "host-v" in feed.hosts)
    assert [each.record.name for each in mirror.gone()] == ["host-w"], "the other one is back"
    now += REMEMBERED + 1
    assert mirror.gone() == []
    nursery.cancel_scope.cancel()
    vanished = {each["host"]: each["address"] for each in logs if "vanished" in each["event"]}
    assert vanished == {"host-v": "10.77.0.9:7600", "host-w": "10.77.0.8:7600"}
    told = [(each["event"], each["host"], each["services"]) for each in logs if "services" in each["event"]]
    assert [each for each in told if each[1] != "host-v"] == [
        ("services offered", "host-l", ["web"]),
        ("services gone", "host-l", ["web"]),
        ("services offered", "host-s", ["old", "web"]),
        ("services offered", "host-s", ["new"]),
        ("services gone", "host-s", ["old"]),
    ]
    assert [each[0] for each in told if each[1] == "host-v"] == ["services offered", "services gone"]
    assert (await store.read("left/")).items == ()


async def test_services_with_one_address_leave_one_line(store: Store, nursery: trio.Nursery) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", "service-1262"))
    with structlog.testing.capture_logs() as logs:
        await nursery.start(StoreMirror(store, MapWatchers(10)).run)
        for name in ("host-b", "host-c"):
            await hosts.register(*shown(name, "service-2207"))
        await until(lambda: ("services offered", "host-c") in [(each["event"], each.get("host")) for each in logs])
    [line] = [entry["error"] for entry in logs if entry["event"] == "two services have one address"]
    assert line.startswith("services service-1262 and service-2207 have one address, 127.112.240.28: ")
    nursery.cancel_scope.cancel()
