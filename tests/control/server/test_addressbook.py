"""The address book on a real store: no two hosts get the same."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from control.api.mesh import AddressLease, AddressRequest
from control.base.errors import RequestRefused
from control.server.addressbook import AddressBook, free_addresses, mac_of
from control.server.config import AddressPoolConfig
from control.store.base import Store
from control.store.sqlite import open_sqlite

LAN = AddressPoolConfig(pool=ipaddress.ip_network("10.77.0.0/28"), reserved=(ipaddress.ip_network("10.77.0.1"),))
ASK = AddressRequest(segment="lan")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield opened


@pytest.fixture
def book(store: Store) -> AddressBook:
    return AddressBook(store, {"lan": LAN})


async def test_a_host_gets_the_same_address_each_time(book: AddressBook) -> None:
    first = await book.lease("host-a", ASK)
    assert first == await book.lease("host-a", ASK)
    assert ipaddress.ip_interface(first.address).network == LAN.pool
    assert first.mac.startswith("02:")


@pytest.mark.parametrize("leased", [True, False])
async def test_a_host_that_brings_no_address_along_any_more_leaves_the_one_that_it_had(
    leased: bool, book: AddressBook
) -> None:
    """It would be kept for as long as the host is there: nobody else could have it."""
    before = await book.lease("host-a", ASK) if leased else None
    static = AddressRequest(segment="lan", address="10.77.0.9", mac="02:00:00:00:00:09")
    await book.lease("host-a", static)
    await book.lease("host-b", AddressRequest(segment="lan", address="10.77.0.8"))
    beside = await book.lease("host-a", ASK)
    (use,) = await book.use("host-a")
    assert (use.held, len(use.own)) == (3, 2), "links.listen may be static and an interface's address leased"
    found = await book.lease("host-a", AddressRequest(segment="lan", alone=True))
    assert found == beside == (before or beside)
    (use,) = await book.use("host-a")
    assert (use.held, use.own) == (2, (found.mac,))
    assert await book.lease("host-c", static)
    assert found == await book.lease("host-a", AddressRequest(segment="lan", alone=True))


@pytest.mark.failure(13)
async def test_no_two_hosts_get_the_same_however_many_ask_at_once(store: Store) -> None:
    # As many books as control servers: what keeps them apart is the store alone.
    books = [AddressBook(store, {"lan": LAN}) for _ in range(3)]
    found: list[AddressLease] = []

    async def ask(number: int) -> None:
        found.append(await books[number % 3].lease(f"host-{number}", ASK))

    async with trio.open_nursery() as nursery:
        for number in range(13):
            nursery.start_soon(ask, number)
    assert len({lease.address for lease in found}) == len({lease.mac for lease in found}) == 13
    assert "10.77.0.1/28" not in {lease.address for lease in found}
    with pytest.raises(RequestRefused) as caught:
        await books[0].lease("host-late", ASK)
    assert (caught.value.status, caught.value.code) == (409, "pool_empty")
    (use,) = await books[0].use()
    assert (use.size, use.held, use.macs) == (13, 13, 13)


@pytest.mark.failure(13)
async def test_a_static_address_is_refused_with_its_holders_name(book: AddressBook) -> None:
    mine = AddressRequest(segment="lan", address="10.77.0.5", mac="02:00:00:00:00:05")
    assert (await book.lease("host-a", mine)).address == "10.77.0.5/28"
    assert (await book.lease("host-a", mine)).mac == "02:00:00:00:00:05"
    with pytest.raises(RequestRefused, match="is host host-a's") as caught:
        await book.lease("host-b", mine)
    assert caught.value.code == "taken"
    same_mac = AddressRequest(segment="lan", address="10.77.0.6", mac="02:00:00:00:00:05")
    with pytest.raises(RequestRefused, match="MAC 02:00:00:00:00:05 on segment lan is host host-a's"):
        await book.lease("host-b", same_mac)


async def test_a_static_address_is_not_leased(book: AddressBook) -> None:
    wanted = (await book.lease("host-a", ASK)).address
    ip = wanted.partition("/")[0]
    with pytest.raises(RequestRefused, match="is host host-a's"):
        await book.lease("host-b", AddressRequest(segment="lan", address=ip))
    # The holder itself may make its lease a static one, and keeps a MAC that it does not name.
    assert (await book.lease("host-a", AddressRequest(segment="lan", address=ip))).address == wanted


@pytest.mark.failure(13)
async def test_each_part_of_a_host_has_its_own_and_gives_it_back(book: AddressBook) -> None:
    web = AddressRequest(segment="lan", part="@web:eth1")
    own, first = await book.lease("host-a", ASK), await book.lease("host-a", web)
    assert first == await book.lease("host-a", web)
    assert own.address != first.address
    assert (own.part, first.part) == ("", "@web:eth1")
    with pytest.raises(RequestRefused, match=r"is host host-a's \(@web:eth1\)"):
        await book.lease("host-a", AddressRequest(segment="lan", address=first.address[:-3]))
    (use,) = await book.use("host-a")
    assert (use.held, use.macs, use.hosts, set(use.own)) == (2, 2, 1, {own.mac, first.mac})
    assert (await book.use())[0].own == (await book.use("host-b"))[0].own == ()
    await book.give_back("host-b", "lan", "@web:eth1")
    assert (await book.use())[0].held == 2, "it is not host-b's"
    await book.give_back("host-a", "lan", "@web:eth1")
    await book.give_back("host-a", "lan", "@web:eth1")
    (use,) = await book.use()
    assert (use.held, use.macs) == (1, 1)


async def test_an_address_from_before_comes_back_if_nobody_has_it(book: AddressBook) -> None:
    first = (await book.lease("host-a", AddressRequest(segment="lan", before="10.77.0.7"))).address
    assert first == "10.77.0.7/28"
    for before in ("10.77.0.7", "10.77.0.1", "10.77.0.15", "10.78.0.1", "x"):
        other = await book.lease(f"host-{before}", AddressRequest(segment="lan", before=before))
        assert other.address not in (first, f"{before}/28")


@pytest.mark.parametrize(
    ("request_", "status", "found"),
    [
        (AddressRequest(segment="wan"), 404, "allowed: lan"),
        (AddressRequest(segment="lan", address="10.78.0.1"), 400, "an address of 10.77.0.0/28"),
        (AddressRequest(segment="lan", address="x\n"), 400, "an address of 10.77.0.0/28"),
        (AddressRequest(segment="lan", address="10.77.0.3", mac="no"), 400, "allowed: one such as"),
        (AddressRequest(segment="lan", part="web\n"), 400, "allowed: none, or @CONTAINER:INTERFACE"),
    ],
)
async def test_refused(book: AddressBook, request_: AddressRequest, status: int, found: str) -> None:
    with pytest.raises(RequestRefused, match=found) as caught:
        await book.lease("host-a", request_)
    assert caught.value.status == status


async def test_what_a_host_holds_can_be_freed(store: Store, book: AddressBook) -> None:
    lease = await book.lease("host-a", ASK)
    await book.lease("host-b", ASK)
    held = await book.keys_of("host-a")
    assert len(held) == 2
    await store.commit(delete=held)
    assert (await book.lease("host-c", AddressRequest(segment="lan", address=lease.address[:-3]))).segment == "lan"


async def test_the_address_comes_back_from_a_lost_book(tmp_path: Path) -> None:
    found = []
    for number in range(2):
        async with open_sqlite(str(tmp_path / f"{number}.db")) as store:
            found.append(await AddressBook(store, {"lan": LAN}).lease("host-a", ASK))
    assert found[0] == found[1]


def test_addresses_of_a_pool() -> None:
    free = set(free_addresses("host-a", LAN, {"10.77.0.9"}))
    assert free == {f"10.77.0.{last}" for last in range(2, 15)} - {"10.77.0.9"}


def test_macs_are_local_and_follow_from_the_address() -> None:
    wide = AddressPoolConfig(pool=ipaddress.ip_network("10.64.0.0/12"))
    macs = {mac_of("lan", wide, f"10.64.{high}.{low}") for high in (0, 1, 255) for low in range(256)}
    assert len(macs) == 3 * 256
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)


@pytest.mark.failure(13)
async def test_a_zone_makes_no_other_address(store: Store) -> None:
    book = AddressBook(store, {"six": AddressPoolConfig(pool=ipaddress.ip_network("fd00::/120"))})
    await book.lease("host-a", AddressRequest(segment="six", address="fd00::5"))
    for zone in ("%1", "%eth0", "%a b"):
        with pytest.raises(RequestRefused) as caught:
            await book.lease("host-b", AddressRequest(segment="six", address=f"fd00::5{zone}"))
        assert caught.value.status == 400
        leased = await book.lease(f"host-{zone[1]}", AddressRequest(segment="six", before=f"fd00::5{zone}"))
        assert "%" not in leased.address


@pytest.mark.parametrize("segment", ["a b", "ö", "s" * 600, "lan/10.77.0.5"])
async def test_a_segment_that_is_none_is_refused(book: AddressBook, segment: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        await book.give_back("host-a", segment, "")
    assert (caught.value.status, caught.value.code) == (400, "query")


@pytest.mark.failure(13)
async def test_a_host_that_has_moved_holds_its_old_address_no_longer(store: Store, book: AddressBook) -> None:
    leased = await book.lease("host-a", ASK)
    mac = "02:00:00:00:00:05"
    for address in ("10.77.0.5", "10.77.0.6"):
        await book.lease("host-a", AddressRequest(segment="lan", address=address, mac=mac))
    await book.lease("host-b", AddressRequest(segment="lan", address="10.77.0.5"))
    assert (await book.lease("host-a", ASK)) == leased
    await book.lease("host-a", AddressRequest(segment="lan", address="10.77.0.7", mac="02:00:00:00:00:07"))
    (use,) = await book.use("host-a")
    assert (use.held, set(use.own)) == (3, {leased.mac, "02:00:00:00:00:07"})
    await book.lease("host-b", AddressRequest(segment="lan", address="10.77.0.6", mac=mac))
