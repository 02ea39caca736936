"""The address book as hosts ask it: a real control server on loopback, or none."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.api import client as clients
from control.api.client import Denied
from control.api.mesh import AddressRequest
from control.base.reading.addresses import TcpAddress
from control.server.config import AddressPoolConfig
from proxy.config.schema import Config, parse
from proxy.errors import NetError, StartError
from proxy.mesh.join import ensure
from proxy.netdev.leases import addressbook
from proxy.netdev.leases.addressbook import (
    asking,
    at_start,
    claim,
    counted,
    files_of,
    for_commands,
    give_back,
    own_lease,
    remembered,
)
from proxy.netdev.leases.leases import LeasedAddresses, fill
from tests.mesh.conftest import Mesh, mesh

__all__ = ["mesh"]

LAN = AddressPoolConfig(pool=ipaddress.ip_network("10.79.0.0/28"))
AUTO = "address: auto, segment: lan"
HL0 = "interfaces: {hl0: {parent: eth0, addresses: [%s]}}\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressbook, "PAUSE", 0.01)


@contextmanager
def nobody_answers() -> Iterator[None]:
    """Around what happens without a control server, so that it is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "DEADLINE", 0.2)
        yield


def host(mesh: Mesh, name: str = "host-a", links: str = AUTO, more: str = HL0 % "auto") -> Config:
    folder = mesh.directory / name
    folder.mkdir(exist_ok=True)
    return parse(
        f"host: {name}\nrun_dir: {folder}/run\nlinks: {{{links}}}\n{more}"
        f"control: {{servers: ['127.0.0.1:{mesh.fixed_port}'], token_file: {folder}/token, "
        f"state_dir: {folder}/state}}\n",
        "f",
    )


async def joined(mesh: Mesh, *configs: Config) -> None:
    for config in configs:
        await mesh.give_token(config)
        await ensure(config, lambda: 0.0)


def serving(mesh: Mesh, **changes: Any) -> Any:
    return mesh.serving(**{"listen": TcpAddress("127.0.0.1", mesh.fixed_port), "segments": {"lan": LAN}, **changes})


async def start(config: Config) -> LeasedAddresses:
    with trio.fail_after(60):
        return await at_start(config, lambda: 0.0)


async def refused(config: Config) -> str:
    with pytest.raises(StartError) as caught:
        await start(config)
    return str(caught.value)


def ip_of(config: Config, book: LeasedAddresses) -> str:
    return fill(config, book.leases).links.listen.host


@pytest.mark.failure(13)
async def test_two_hosts_get_two_addresses_and_keep_them(mesh: Mesh) -> None:
    a, b = host(mesh), host(mesh, "host-b")
    async with serving(mesh):
        await joined(mesh, a, b)
        first, other = await start(a), await start(b)
        assert ip_of(a, first) != ip_of(b, other)
        assert (await start(a)).leases == first.leases
    with capture_logs() as logs, nobody_answers():
        assert (await start(a)).leases == first.leases
    assert events(logs) == ["using the leased address from before"]
    assert remembered(a) == fill(a, first.leases)


def events(logs: list[MutableMapping[str, Any]]) -> list[str]:
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.failure(13)
async def test_a_book_that_was_lost_gives_the_address_from_before_unless_it_is_another_s(mesh: Mesh) -> None:
    a, b = host(mesh), host(mesh, "host-b")
    async with serving(mesh):
        await joined(mesh, a, b)
        lease = (await start(a)).leases["lan"]
        moved = msgspec.structs.replace(lease, address="10.79.0.9/28")
        async with mesh.admin() as admin:
            with pytest.raises(Denied):
                await admin.remove("host-c")
            await admin.remove("host-a")
        files_of(a).write(moved)
        assert (await start(a)).leases["lan"].address == moved.address
        # While host-a is away for too long, host-b gets its address.
        async with mesh.admin() as admin:
            await admin.remove("host-a")
        async with asking(b) as client:
            await client.addresses(AddressRequest(segment="lan", before="10.79.0.9"))
        running = LeasedAddresses(leases={"lan": moved})
        async with asking(a) as client:
            with pytest.raises(Denied, match=r"address 10.79.0.9 on segment lan is no longer this host's") as caught:
                await claim(client, fill(a, running.leases), running)
        assert caught.value.code == "taken"
        with capture_logs() as logs:
            found = await start(a)
        assert found.leases["lan"].address != moved.address
        assert f"restart the proxy, which gets {ip_of(a, found)}" in str(caught.value)
        assert events(logs) == [
            "another link address: the one before was given to another host, or is of the pool no more"
        ]
        async with asking(a) as client:
            await claim(client, fill(a, found.leases), found)


@pytest.mark.failure(13)
async def test_a_static_address_is_refused_with_its_holders_name(mesh: Mesh) -> None:
    async with serving(mesh):
        a = host(mesh)
        await joined(mesh, a)
        ip = ip_of(a, await start(a))
        static = f"listen: '{ip}:7600', segment: lan"
        b = host(mesh, "host-b", static, HL0 % f"{ip}/28")
        await joined(mesh, b)
        assert await refused(b) == (
            f"links.listen: address {ip} on segment lan is host host-a's; allowed: an address of its own"
        )
        free = next(str(each) for each in LAN.pool.hosts() if str(each) != ip)
        c = host(mesh, "host-c", f"listen: '{free}:7600', segment: lan", HL0 % f"{free}/28")
        await joined(mesh, c)
        assert await start(c) == LeasedAddresses()
        async with asking(c) as client:
            (use,) = (await client.status()).segments
            await claim(client, c, LeasedAddresses())
        assert len(use.own) == 1, "with the MAC of the interface that has it"
    with nobody_answers():
        assert await start(b) == LeasedAddresses(), "it starts, and asks again when it registers"


async def test_a_host_that_changes_from_a_static_address_to_a_leased_one_leaves_the_static_one(mesh: Mesh) -> None:
    static = "10.79.0.12"
    fixed = host(mesh, links=f"listen: '{static}:7600', segment: lan", more=HL0 % f"{static}/28, auto")
    async with serving(mesh):
        await joined(mesh, fixed)
        found = await start(fixed)
        async with asking(fixed) as client:
            await claim(client, fill(fixed, found.leases), found)
            assert (await client.status()).segments[0].held == 2, "a static one, and a lease beside it"
        auto = host(mesh)
        again = await start(auto)
        assert again.leases == found.leases
        async with asking(auto) as client:
            assert (await client.status()).segments[0].held == 1
            await claim(client, fill(auto, again.leases), again)
        b = host(mesh, "host-b", f"listen: '{static}:7600', segment: lan", HL0 % f"{static}/28")
        await joined(mesh, b)
        assert await start(b) == LeasedAddresses(), "it is free"


async def test_what_the_control_plane_has_not_is_one_line(mesh: Mesh) -> None:
    a = host(mesh, links="address: auto, segment: wan")
    b = host(mesh, "host-b", "listen: '10.99.0.1:7600', segment: lan", "")
    async with serving(mesh):
        await joined(mesh, a, b)
        assert await refused(a) == (
            'links.segment: found segment "wan"; allowed: lan (segments in the control server\'s file)'
        )
        assert await refused(b) == (
            'links.listen: found "10.99.0.1"; allowed: an address of 10.79.0.0/28 (segment lan)'
        )


async def test_a_host_that_never_had_an_address_waits(mesh: Mesh) -> None:
    a = host(mesh)
    async with serving(mesh):
        await joined(mesh, a)
    found: list[LeasedAddresses] = []

    async def wait() -> None:
        found.append(await start(a))

    with capture_logs() as logs, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with nobody_answers():
                nursery.start_soon(wait)
                while not events(logs):
                    await trio.sleep(0.01)
            async with serving(mesh):
                while not found:
                    await trio.sleep(0.01)
    assert set(events(logs)) == {"no link address yet, trying on"}
    assert found[0].leases["lan"].segment == "lan"


async def test_hosts_that_have_nothing_to_ask(mesh: Mesh) -> None:
    assert await start(parse("host: a\nlinks: {listen: '10.0.0.1:1', security: none}\n", "f")) == LeasedAddresses()
    assert await start(host(mesh, links="listen: '10.0.0.1:1'", more="")) == LeasedAddresses()


async def test_commands(mesh: Mesh) -> None:
    a = host(
        mesh, more=HL0 % "auto" + "segments: {lan: {parent: eth0, mac_limit: 9}, own: {parent: eth1, mac_limit: 9}}\n"
    )
    with pytest.raises(
        NetError, match=r"^segment lan: no address from the control plane: this host has not joined the mesh"
    ):
        await for_commands(a)
    b = host(mesh, "host-b")
    async with serving(mesh):
        await joined(mesh, a, b)
        await start(b)
        book = await for_commands(a)
        assert (book.elsewhere, book.notes) == ({"lan": 2}, ()), "host-b's own, and its parent's"
        mine = await own_lease(a, "lan", "@web:eth1")
        assert await counted(a) == ({"lan": 2}, ()), "what is this host's is not elsewhere"
        with pytest.raises(NetError, match="^segment wan: no address from the control plane: found segment"):
            await own_lease(a, "wan", "@web:eth1")
        assert await own_lease(a, "lan", "@web:eth1") == mine
    with nobody_answers():
        found = await for_commands(a)
    assert found.leases == book.leases
    assert found.notes[0].startswith(
        "the MACs of other hosts are not known, this host's share counts: no control server"
    )
    with (
        nobody_answers(),
        pytest.raises(
            NetError, match=r"^web: address .* is not given back \(no control server .*; detach again later$"
        ),
    ):
        await give_back(a, "web")
    async with serving(mesh):
        second = await own_lease(a, "lan", "@web:eth2")
        await give_back(a, "web", second)
        assert files_of(a).parts("web") == [mine]
        await give_back(a, "web")
        assert files_of(a).parts("web") == []
        async with asking(a) as client:
            assert (await client.status()).segments[0].held == 2


async def test_containers_addresses_are_entered_again(mesh: Mesh, tmp_path: Path) -> None:
    a, b = host(mesh), host(mesh, "host-b")
    async with serving(mesh):
        await joined(mesh, a, b)
        book, web = await start(a), await own_lease(a, "lan", "@web:eth1")
        async with mesh.admin() as admin:
            await admin.remove("host-a")
        async with asking(a) as client:
            await claim(client, fill(a, book.leases), book)
            assert (await client.status()).segments[0].held == 2
        async with mesh.admin() as admin:
            await admin.remove("host-a")
        async with asking(b) as client:
            await client.addresses(AddressRequest(segment="lan", address=web.address.partition("/")[0]))
        with capture_logs() as logs:
            async with asking(a) as client:
                await claim(client, fill(a, book.leases), book)
        assert events(logs) == ["a container's address is another one's by now"]
