"""Several control servers: clients that find another one, and a cluster of which parts die."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from control.api import mesh
from control.api.client import ControlClient, Denied, MapWatch, Unreachable
from control.server.api import AFTER
from tests.control.server.clusters import cluster
from tests.control.server.conftest import MESH, PATIENCE, World, over_after_a_round, record
from tests.tools.sockets import free_ports

WAIT = 4 * PATIENCE


async def test_a_dead_server_is_passed_over(world: World) -> None:
    context = world.context("host-a")
    async with world.serving():
        (dead,) = free_ports(1)
        client = ControlClient([f"127.0.0.1:{dead}", f"127.0.0.1:{world.port}"], lambda: context, name=MESH)
        async with client:
            for _ in range(4):
                assert (await client.status()).name == "control-1"
            with trio.fail_after(PATIENCE):
                async with client.watch() as messages:
                    assert isinstance(await anext(messages), mesh.MapSnapshot)


@pytest.mark.failure("31")
async def test_a_server_of_an_earlier_version_is_watched_without_what_it_does_not_know(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, denied = world.context("host-a"), []
    async with world.serving():
        servers = [f"127.0.0.1:{world.port}", f"127.0.0.1:{free_ports(1)[0]}"]
        async with ControlClient(servers, lambda: context, name=MESH) as client:
            client.on_denied = denied.append
            for newer in ("", "elsewhere", "instance"):
                monkeypatch.delitem(AFTER, newer, raising=False)
                with trio.fail_after(PATIENCE):
                    async with client.watch(instance="i1") as messages:
                        assert isinstance(await anext(messages), mesh.MapSnapshot)
            with pytest.raises(Denied, match="a revision, a whole number"):
                async with client.watch("e", -1, instance="i1"):
                    pass
    assert [each.code for each in denied] == ["query"], "only what is refused is told"


async def test_nobody_answers_within_the_deadline(
    world: World, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = free_ports(2)
    context = world.context("host-a")
    servers, dice = [f"127.0.0.1:{port}" for port in ports], over_after_a_round(mock_clock, monkeypatch)
    async with ControlClient(servers, lambda: context, name=MESH, random=dice) as client:
        with pytest.raises(Unreachable) as caught:
            await client.status()
    for port in ports:
        assert f"127.0.0.1:{port}: connection refused" in str(caught.value)


@pytest.mark.failure(11)
async def test_a_silent_server_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "HEARTBEAT", 60.0)
    async with world.serving(), world.client("host-a") as client:
        with trio.fail_after(PATIENCE):
            async with client.watch() as messages:
                await anext(messages)
                monkeypatch.setattr(mesh, "SILENCE", 0.3)
                with pytest.raises(Unreachable, match="nothing came for"):
                    await anext(messages)


@pytest.mark.failure(19)
async def test_a_message_without_end_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.api.mapwatch.MAX_LINE", 100)
    async with world.serving(), world.client("host-a") as client:
        await client.register(record("host-a", *[f"service-{number}" for number in range(2000)]))
        with trio.fail_after(PATIENCE):
            async with client.watch() as messages:
                with pytest.raises(Unreachable, match="a message of more than"):
                    async for _ in messages:
                        pass


async def test_a_client_in_a_cancelled_scope_leaves_nothing_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server learns that a watcher is gone when it tells it something.
    monkeypatch.setattr(mesh, "HEARTBEAT", 0.1)
    async with world.serving(), world.client("host-a") as client, world.admin() as admin:
        with trio.move_on_after(0.5):
            async with client.watch() as messages:
                async for _ in messages:
                    pass
        with trio.fail_after(PATIENCE):
            while (await admin.status()).watchers:
                await trio.sleep(0.01)


async def until_known(messages: MapWatch, known: dict[str, mesh.HostRecord], host: str) -> list[mesh.WatchMessage]:
    """Follow until that host is known; what came."""
    came: list[mesh.WatchMessage] = []
    with trio.fail_after(WAIT):
        while host not in known:
            message = await anext(messages)
            came.append(message)
            if isinstance(message, mesh.MapSnapshot):
                known.clear()
                known.update((each.name, each) for each in message.hosts)
            elif isinstance(message, mesh.MapChanges):
                known.update((each.name, each) for each in message.put)
                for name in message.gone:
                    known.pop(name, None)
    return came


@pytest.mark.etcd
async def test_three_servers_are_one_and_any_may_die(world: World, tmp_path: Path) -> None:
    async with cluster(world, tmp_path, 1) as made:
        for name in made.ports:
            # A server can go on only from a revision since it has read the map, and is up without it if etcd is slow.
            async with made.client("host-w", name) as w:
                await w.hosts()
        async with made.client("host-a", "control-1") as a, made.client("host-b", "control-2") as b:
            await a.register(record("host-a", address="10.77.0.1:7600"))
            with pytest.raises(Denied, match="is host host-a's"):
                await b.register(record("host-b", address="10.77.0.1:7600"))
            await b.register(record("host-b", address="10.77.0.2:7600"))
            await b.alive("host-b", "1")
        known: dict[str, mesh.HostRecord] = {}
        async with made.client("host-w") as w:
            async with w.watch() as messages:
                came = await until_known(messages, known, "host-b")
                assert set(known) == {"host-a", "host-b"}
                assert isinstance(came[0], mesh.MapSnapshot)
                # What this watch has told, and not what a server says that may be behind.
                epoch, revision = came[0].epoch, came[-1].revision
                port = int(messages.server.rpartition(":")[2])
                dead = next(name for name, each in made.ports.items() if each == port)
                made.scopes[dead].cancel()
                with pytest.raises((Unreachable, StopAsyncIteration)):
                    with trio.fail_after(WAIT):
                        while True:
                            await anext(messages)
            others = [name for name in made.ports if name != dead]
            async with made.client("host-c", *others) as c:
                await c.register(record("host-c", address="10.77.0.3:7600"))
            async with w.watch(epoch, revision) as messages:
                came = await until_known(messages, known, "host-c")
            # Another server goes on where the dead one was.
            assert not any(isinstance(message, mesh.MapSnapshot) for message in came)
            assert set(known) == {"host-a", "host-b", "host-c"}


@pytest.mark.etcd
@pytest.mark.failure(11)
async def test_the_watch_has_no_gap_when_etcds_leader_dies(world: World, tmp_path: Path) -> None:
    async with cluster(world, tmp_path, 3) as made:
        known: dict[str, mesh.HostRecord] = {}
        async with made.client("host-a") as a, made.client("host-w") as w:
            async with w.watch() as messages:
                first = await anext(messages)
                assert isinstance(first, mesh.MapSnapshot)
                await a.register(record("host-a", address="10.77.0.1:7600"))
                leader = await trio.to_thread.run_sync(made.etcd.leader)
                await trio.to_thread.run_sync(leader.kill)
                with trio.fail_after(WAIT):
                    while True:
                        try:
                            await a.register(record("host-a", "late", address="10.77.0.1:7600"))
                            break
                        except Unreachable:
                            continue
                    # Neither an end nor a new snapshot: the same watch brings the change.
                    while not (record_ := known.get("host-a")) or not record_.services:
                        known.pop("host-a", None)
                        came = await until_known(messages, known, "host-a")
                        assert not any(isinstance(message, mesh.MapSnapshot) for message in came)
