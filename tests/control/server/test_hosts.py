"""Registering on a real store."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
import trio

from control.api.mesh import AddressRequest
from control.base.errors import RequestRefused
from control.server.addressbook import AddressBook
from control.server.config import AddressPoolConfig
from control.server.mirror import StoreMirror
from control.server.namesakes import Namesakes
from control.server.watching import MapWatchers
from control.store.base import Store
from control.store.sqlite import open_sqlite
from tests.control.server.conftest import hosts_on, knowing, record, shown


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield await knowing(opened)


async def names(store: Store) -> list[str]:
    return [item.key for item in (await store.read("")).items if item.key.startswith(("hosts/", "links/"))]


async def test_a_record_is_replaced_and_keeps_its_lease(store: Store) -> None:
    hosts = hosts_on(store)
    first = await hosts.register(*shown("host-a", "web"))
    (before,) = (await store.read("hosts/")).items
    second = await hosts.register(*shown("host-a", "web", "redis"))
    (after,) = (await store.read("hosts/")).items
    assert second.revision > first.revision
    assert before.lease == after.lease


async def test_a_restarted_host_takes_over_from_itself(store: Store) -> None:
    old, new = hosts_on(store), hosts_on(store)
    await old.register(*shown("host-a", instance="1"))
    await new.register(*shown("host-a", instance="2"))
    with pytest.raises(RequestRefused) as caught:
        await old.alive("host-a", "1")
    assert caught.value.code == "superseded"
    await old.leave("host-a", "1")
    await new.alive("host-a", "2")
    await old.alive("host-a", "2")
    await new.leave("host-a", "2")
    assert await names(store) == []


@pytest.mark.failure(13)
async def test_of_many_hosts_with_one_address_one_gets_it(store: Store) -> None:
    servers = [hosts_on(store) for _ in range(3)]
    refused: list[str] = []

    async def register(number: int) -> None:
        try:
            await servers[number % 3].register(*shown(f"host-{number}", address="10.77.0.9:7600"))
        except RequestRefused as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(register, number)
    assert refused == ["taken"] * 8
    assert len(await names(store)) == 2


async def test_a_host_that_is_silent_is_gone_after_its_lease(store: Store) -> None:
    hosts = hosts_on(store, lease=0.2)
    async with store.watch("hosts/", 0) as commits:
        await hosts.register(*shown("host-a"))
        with trio.fail_after(20):
            while True:
                commit = await commits.receive()
                if commit.changes[0].value is None:
                    break
    with pytest.raises(RequestRefused) as caught:
        await hosts.alive("host-a", "1")
    assert caught.value.code == "unknown_host"
    # Its address is free again.
    await hosts.register(*shown("host-b", address=record("host-a").address))


async def test_a_refused_registration_leaves_no_lease_behind(store: Store) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", address="10.77.0.9:7600"))
    with pytest.raises(RequestRefused):
        await hosts.register(*shown("host-b", address="10.77.0.9:7600"))
    await hosts.remove("host-a")
    with pytest.raises(RequestRefused, match="no host host-a"):
        await hosts.remove("host-a")
    assert await names(store) == []


async def test_a_lease_that_is_gone_before_the_commit_is_granted_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases: list[int] = []
    grant = store.grant

    async def slow(ttl: float) -> int:
        leases.append(await grant(ttl))
        if len(leases) == 1:
            # As when the store is so busy that the whole TTL passes between the two.
            await store.revoke(leases[0])
        return leases[-1]

    monkeypatch.setattr(store, "grant", slow)
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a"))
    (item,) = (await store.read("hosts/")).items
    assert item.lease == leases[1]
    await hosts.alive("host-a", "1")


async def test_what_is_known_of_leases_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.server.hosts.REMEMBERED", 2)
    hosts = hosts_on(store)
    for number in range(4):
        await hosts.register(*shown(f"host-{number}", address=f"10.77.0.{number + 1}:7600"))
    assert list(hosts._leases) == ["host-2", "host-3"]
    # Who was forgotten is found in the store.
    await hosts.alive("host-0", "1")
    assert list(hosts._leases) == ["host-3", "host-0"]


async def test_a_host_with_many_containers_is_removed(store: Store) -> None:
    lan = AddressPoolConfig(pool=ipaddress.ip_network("10.77.0.0/24"))
    book = AddressBook(store, {"lan": lan})
    hosts = hosts_on(store, book=book)
    for number in range(80):
        await book.lease("host-a", AddressRequest(segment="lan", part=f"@c{number}:eth1"))
    await book.lease("host-b", AddressRequest(segment="lan"))
    for registered in (True, False):
        if registered:
            await hosts.register(*shown("host-a"))
        await hosts.remove("host-a")
        assert await names(store) == []
        assert [use.held for use in await book.use()] == [1]
        for number in range(80):
            await book.lease("host-a", AddressRequest(segment="lan", part=f"@c{number}:eth1"))


@pytest.mark.parametrize("name", ["host a", "höst", "h" * 600, "a/b"])
async def test_a_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        await hosts_on(store).remove(name)
    assert (caught.value.status, caught.value.code) == (400, "host")


@pytest.mark.failure("22")
async def test_another_proxy_of_the_name_is_refused_while_the_first_one_is_alive(store: Store) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", address="10.77.0.1:7600", secret="one"), "10.77.0.1")
    for secret in ("two", ""):
        with pytest.raises(RequestRefused) as caught:
            await hosts.register(*shown("host-a", address="10.77.0.9:7600", instance="2", secret=secret), "192.0.2.9")
        assert (caught.value.status, caught.value.code) == (409, "in_use")
        assert "is the proxy at 10.77.0.1:7600, which is alive" in str(caught.value)
        assert "at 10.77.0.9:7600 (comes from 192.0.2.9)" in str(caught.value)
    await hosts.alive("host-a", "1")
    assert await names(store) == ["hosts/host-a", "links/10.77.0.1:7600"]
    # When that one has gone, the name is free.
    await hosts.leave("host-a", "1")
    await hosts.register(*shown("host-a", address="10.77.0.9:7600", instance="2", secret="two"))
    assert await names(store) == ["hosts/host-a", "links/10.77.0.9:7600"]


@pytest.mark.failure("27")
async def test_one_that_is_somebody_else_each_time_is_one_kind_in_the_log(store: Store) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", secret="one"), "10.77.0.1")
    with structlog.testing.capture_logs() as logs:
        for number in range(5):
            with pytest.raises(RequestRefused):
                await hosts.register(*shown("host-a", instance=f"{number + 2}", secret="two"), "192.0.2.9")
    said = [entry for entry in logs if entry["event"] == "two proxies of one name"]
    assert [entry["kind"] for entry in said] == [("host-a",)] * 5


@pytest.mark.failure("22")
@pytest.mark.parametrize("how", [{"secret": "one"}, {"secret": "two", "before": "one"}])
async def test_who_shows_the_secret_is_a_restart(store: Store, how: dict[str, str]) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a", secret="one"))
    with pytest.raises(RequestRefused, match="is alive"):
        await hosts.register(*shown("host-a", instance="2", yields=True, **how))
    await hosts.register(*shown("host-a", instance="2", **how))
    with pytest.raises(RequestRefused, match="registered by another process since, at 10.77.0") as caught:
        await hosts.alive("host-a", "1")
    assert caught.value.code == "superseded"


@pytest.mark.failure("22")
async def test_one_that_is_on_the_map_and_was_not_heard_of_lately_is_not_alive(store: Store) -> None:
    namesakes = Namesakes()
    hosts = hosts_on(store, lease=3.0, namesakes=namesakes)
    other = shown("host-a", instance="2", secret="two")
    await hosts.register(*shown("host-a", secret="one"))
    heard = trio.current_time()
    with namesakes.watching("host-a", "1"):
        await trio.sleep_until(heard + 2.1)  # two signs of life are over, and the lease is not
        if trio.current_time() < heard + 2.8:
            with pytest.raises(RequestRefused, match="is alive"):
                await hosts.register(*other)
    await hosts.register(*other)
    await hosts.alive("host-a", "2")


@pytest.mark.failure("22")
async def test_the_first_one_is_told_by_whichever_server_it_asks(store: Store) -> None:
    """The store says so to all of them, by the mirror."""
    watching = MapWatchers(10)
    asked, other = hosts_on(store, namesakes=watching.namesakes), hosts_on(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(StoreMirror(store, watching).run)
        await asked.register(*shown("host-a", secret="one"))
        assert (await asked.alive("host-a", "1")).namesake is None
        for _ in range(2):
            with pytest.raises(RequestRefused, match="is alive"):
                await other.register(*shown("host-a", instance="2", secret="two"), "192.0.2.9")
        with trio.fail_after(20):
            while (told := (await asked.alive("host-a", "1")).namesake) is None:
                await trio.sleep(0.01)
        assert (told.instance, told.client) == ("2", "192.0.2.9")
        assert len((await store.read("namesakes/")).items) == 1, "one item, however often it comes"
        await asked.leave("host-a", "2")
        with trio.fail_after(20):
            while (await asked.alive("host-a", "1")).namesake is not None:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.failure("22")
async def test_one_of_an_earlier_version_is_replaced_as_it_was_then(store: Store) -> None:
    hosts = hosts_on(store)
    await hosts.register(*shown("host-a"))
    await hosts.register(*shown("host-a", instance="2", secret="two"))
    await hosts.alive("host-a", "2")


@pytest.mark.failure("22")
async def test_addresses_are_not_given_to_another_proxy_of_the_name(store: Store) -> None:
    hosts = hosts_on(store)
    await hosts.admit("host-a", "two", "192.0.2.9")
    await hosts.register(*shown("host-a", secret="one"))
    for secret in ("one", ""):
        await hosts.admit("host-a", secret, "10.77.0.1")
    with pytest.raises(RequestRefused, match="another one of that name at 192.0.2.9") as caught:
        await hosts.admit("host-a", "two", "192.0.2.9")
    assert caught.value.code == "in_use"
