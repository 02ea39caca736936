"""Leased addresses of containers that are no more."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.api import client as clients
from control.base.reading.addresses import TcpAddress
from control.server.config import AddressPoolConfig
from proxy.config.schema import Config, DoorConfig, parse
from proxy.door import returning
from proxy.door.engine import Engine, Unanswered
from proxy.door.returning import LeaseReturns
from proxy.mesh.join import ensure
from proxy.netdev.leases import addressbook
from proxy.netdev.leases.addressbook import asking, files_of, own_lease
from proxy.netdev.leases.leases import ip_of, part_of
from tests.door.conftest import DIRECTORY
from tests.door.engines import FakeEngine
from tests.mesh.conftest import Mesh, mesh

__all__ = ["mesh"]

LAN = AddressPoolConfig(pool=ipaddress.ip_network("10.79.0.0/28"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returning, "GRACE", 0.0)


@asynccontextmanager
async def returns(mesh: Mesh, tmp_path: Path, engine: FakeEngine) -> AsyncIterator[tuple[LeaseReturns, Engine, Config]]:
    """Of a host that has joined a mesh, while the control server runs."""
    config = parse(
        f"host: host-a\nrun_dir: {tmp_path}/run\nlinks: {{listen: 127.0.0.1:7600, segment: lan}}\n"
        f"door: {{engine: {engine.path}, namespaces: {DIRECTORY}}}\n"
        f"control: {{servers: ['127.0.0.1:{mesh.fixed_port}'], token_file: {tmp_path}/token, "
        f"state_dir: {tmp_path}/state}}\n",
        "f",
    )
    assert isinstance(config.door, DoorConfig)
    async with (
        mesh.serving(listen=TcpAddress("127.0.0.1", mesh.fixed_port), segments={"lan": LAN}),
        Engine(str(engine.path)) as client,
    ):
        await mesh.give_token(config)
        await ensure(config, lambda: 0.0)
        yield LeaseReturns(config, config.door, trio.Lock()), client, config


async def leased(config: Config, container: str) -> str:
    """Returns the address."""
    return ip_of(await own_lease(config, "lan", part_of(container, "eth0")))


async def held(config: Config) -> tuple[list[str], int]:
    """The containers whose leases are remembered, and how many the control plane knows of."""
    async with asking(config) as client:
        known = (await client.status()).segments[0].held
    return [lease.part for lease in files_of(config).parts()], known


async def test_a_container_that_is_no_more_gives_its_address_back(mesh: Mesh, tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (here, client, config):
            engine.put("one", "none", {}, Running=False)
            engine.put("two", "none", {"hostlane.attach": "eth0"})
            for name in ("one-name", "two-name", "pid-77"):
                await leased(config, name)
            assert not await here.look(client)
            del engine.containers["one"]
            with capture_logs() as logs:
                await here.look(client)
            assert [entry["container"] for entry in logs if entry["event"] == "address given back"] == ["one-name"]
            assert await held(config) == (["@pid-77:eth0", "@two-name:eth0"], 2)
            assert not await here.look(client)
            for lease in files_of(config).parts():
                files_of(config).forget(lease)
            engine.asked.clear()
            assert not await here.look(client)
            assert engine.asked == [], "where nothing is leased nobody is asked"


async def test_another_container_of_that_name_keeps_the_address(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (here, client, config):
            address = await leased(config, "one-name")
            monkeypatch.setattr(returning, "GRACE", 3600.0)
            assert await here.look(client), "it is looked for again soon"
            engine.put("one", "none", {})
            assert not await here.look(client)
            del engine.containers["one"]
            monkeypatch.setattr(returning, "GRACE", 0.0)
            # One of that name comes between the look and the end of the lock.
            lock = here._one
            async with trio.open_nursery() as nursery, lock:
                nursery.start_soon(here.look, client)
                while not lock.statistics().tasks_waiting:
                    await trio.lowlevel.checkpoint()
                engine.put("one", "none", {})
            assert await held(config) == (["@one-name:eth0"], 1)
            assert await leased(config, "one-name") == address


@pytest.mark.netns
async def test_a_container_that_was_renamed_keeps_its_address(
    mesh: Mesh, tmp_path: Path, namespace: Callable[[], str]
) -> None:
    """It runs under another name; by that name it gets another address with its next start."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (here, client, config):
            where = namespace()
            address = await leased(config, "before")
            subprocess.run(["ip", "-n", where, "addr", "add", f"{address}/28", "dev", "lo"], check=True)
            engine.put("now", where, {})
            assert await here.look(client)
            assert (await held(config))[1] == 1
            subprocess.run(["ip", "-n", where, "addr", "del", f"{address}/28", "dev", "lo"], check=True)
            await here.look(client)
            assert await held(config) == ([], 0)


async def test_what_cannot_be_looked_into_counts_as_used(mesh: Mesh, tmp_path: Path) -> None:
    """A file that is no namespace; one that is not there belonged to a container that has ended."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (_, client, config):
            assert config.door is not None
            (tmp_path / "file").touch()
            here = LeaseReturns(config, msgspec.structs.replace(config.door, namespaces=str(tmp_path)), trio.Lock())
            await leased(config, "gone")
            engine.put("now", "file", {})
            assert await here.look(client)
            assert (await held(config))[1] == 1
            engine.put("now", "nowhere", {})
            await here.look(client)
            assert await held(config) == ([], 0)


async def test_it_is_tried_again_when_nobody_has_answered(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once."""
    monkeypatch.setattr(clients, "DEADLINE", 0.2)
    monkeypatch.setattr(addressbook, "PATIENCE", 0.5)
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (here, client, config):
            await leased(config, "gone")
        async with Engine(str(engine.path)) as client:
            with capture_logs() as logs:
                for _ in range(2):
                    assert await here.look(client)
            assert [entry["event"] for entry in logs] == ["an address is not given back yet"]
        assert [lease.part for lease in files_of(config).parts()] == ["@gone:eth0"]


async def test_without_a_control_plane_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = parse("host: a\nlinks: {listen: 127.0.0.1:7600, security: none}\ndoor: {}\n", "f")
    assert config.door is not None
    with trio.fail_after(5):
        async with Engine(str(tmp_path / "nobody")) as client:
            await LeaseReturns(config, config.door, trio.Lock()).run(client)


async def test_it_looks_when_a_container_was_removed(mesh: Mesh, tmp_path: Path) -> None:
    """And by itself after a while; an engine that is away is asked again then."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with returns(mesh, tmp_path, engine) as (here, client, config):
            await leased(config, "one-name")
            engine.put("one", "none", {})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.run, client)
                while not engine.asked:
                    await trio.sleep(0.001)
                del engine.containers["one"]
                here.wake()
                with trio.fail_after(20):
                    while files_of(config).parts():
                        await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
            await leased(config, "one-name")
    async with Engine(str(tmp_path / "nobody")) as client:
        with pytest.raises(Unanswered):
            await here.look(client)
