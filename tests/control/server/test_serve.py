from __future__ import annotations

import os
import signal
import time

import msgspec
import pytest
import trio
import trio.testing

from control.api import mesh
from control.api.client import Denied
from control.base.errors import StartError
from control.base.reading.addresses import TcpAddress
from control.server import serve
from control.server.config import SqliteConfig, StoreConfig
from tests.control.server.conftest import PATIENCE, World, news, record


async def test_hosts_register_and_watch(world: World) -> None:
    async with world.serving(), world.client("host-a") as a, world.client("host-b") as b:
        registered = await a.register(record("host-a", "redis"))
        assert registered.lease == 15.0
        with trio.fail_after(PATIENCE):
            async with b.watch() as messages:
                first = await news(messages)
                assert isinstance(first, mesh.MapSnapshot)
                assert [host.name for host in first.hosts] == ["host-a"]
                await b.register(record("host-b", "web", "redis"))
                second = await news(messages)
                assert isinstance(second, mesh.MapChanges)
                assert [offer.name for offer in second.put[0].services] == ["redis", "web"]
                await a.leave("host-a", "1")
                third = await news(messages)
                assert isinstance(third, mesh.MapChanges)
                assert third.gone == ("host-a",)


async def test_the_administrator_sees_the_map(world: World) -> None:
    async with world.serving(), world.client("host-a") as a, world.admin() as admin:
        await a.register(record("host-a"))
        with trio.fail_after(PATIENCE):
            async with admin.watch() as messages:
                while not (await news(messages)).hosts:  # type: ignore[union-attr]
                    pass
        assert [host.name for host in (await admin.hosts()).hosts] == ["host-a"]
        status = await admin.status()
        assert (status.hosts, status.watching, status.name) == (1, True, "control-1")
        before, told = time.time(), (await a.alive("host-a", "1")).now
        assert told is not None
        assert before <= told <= time.time()
        await admin.remove("host-a")
        with pytest.raises(Denied) as caught:
            await a.alive("host-a", "1")
        assert caught.value.code == "unknown_host"


async def test_a_stop_ends_watches_and_leaves_nothing_behind(world: World) -> None:
    async with trio.open_nursery() as nursery:
        world.port = await nursery.start(serve.run, world.config)
        async with world.client("host-a") as a:
            await a.register(record("host-a"))
            with trio.fail_after(PATIENCE):
                async with a.watch() as messages:
                    await anext(messages)
                    os.kill(os.getpid(), signal.SIGTERM)
                    # The end, and no error: its client goes to another server.
                    assert [message async for message in messages if isinstance(message, mesh.MapSnapshot)] == []
    assert os.listdir(world.config.run_dir) == []


async def test_who_comes_to_a_server_that_stops_is_refused_at_once(world: World) -> None:
    async with trio.open_nursery() as nursery:
        world.port = await nursery.start(serve.run, world.config)
        # Only the half of a request, which the server waits for.
        stream = await world.raw("host-a")
        await stream.send_all(b"GET /v1/status HTTP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(PATIENCE), pytest.raises(OSError, match="refused|connect"):
            while True:
                await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", world.port))
        await stream.send_all(b"Host: c\r\n\r\n")
        assert b"200 OK" in await stream.receive_some()
        await trio.aclose_forcefully(stream)


async def test_a_restart_forgets_nothing(world: World) -> None:
    async with world.serving(), world.client("host-a") as a:
        first = await a.register(record("host-a", "web"))
    async with world.serving(), world.client("host-a") as a:
        await a.alive("host-a", "1")
        found = await a.hosts()
        assert found.epoch == first.epoch
        assert [host.name for host in found.hosts] == ["host-a"]


async def test_what_this_machine_cannot_do_is_one_line(world: World) -> None:
    async with world.serving():
        taken = msgspec.structs.replace(
            world.config, listen=TcpAddress("127.0.0.1", world.port), run_dir=str(world.directory / "other"),
            store=StoreConfig(sqlite=SqliteConfig(path=str(world.directory / "other.db"))),
        )  # fmt: skip
        with pytest.raises(StartError, match="another process listens there"):
            await serve.run(taken)
        with pytest.raises(StartError):
            await serve.run(msgspec.structs.replace(taken, store=world.config.store))
