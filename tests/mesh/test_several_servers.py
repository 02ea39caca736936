"""Hosts and several real control servers before a real etcd: hosts flee from one that is gone, and return; what one of
them has heard all of them know.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.api import mesh
from control.api.client import ControlClient, Denied
from control.server import hosts, servers, watching
from proxy.mesh.statelock import StateLock
from tests.control.server.clusters import Balancer, Cluster, cluster
from tests.control.server.conftest import PATIENCE, World
from tests.mesh.test_follower import Proxy

pytestmark = [pytest.mark.etcd, pytest.mark.failure("31")]

WAIT = 4 * PATIENCE
EVEN = "other control servers have fewer watchers: letting some go there"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a minute takes a moment."""
    monkeypatch.setattr(servers, "EVERY", 0.2)
    monkeypatch.setattr(watching, "ASKED_EVERY", 0.5)


@pytest.fixture
def world() -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="hl-"))
    yield World(directory)
    shutil.rmtree(directory)


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class Fleet:
    """Control servers, and hosts that follow them, each with all the servers in its configuration."""

    def __init__(self, cluster: Cluster, folder: Path, nursery: trio.Nursery) -> None:
        self.cluster, self._folder, self._nursery = cluster, folder, nursery
        self.hosts: list[Proxy] = []
        self._clients: list[ControlClient] = []
        self._balancer: Balancer | None = None
        self._running: dict[int, trio.CancelScope] = {}

    async def serve(self, name: str) -> None:
        await self.cluster.start(name)

    async def behind_one_address(self) -> None:
        """That is all that hosts know of the servers from now on."""
        self._balancer = Balancer(self.cluster)
        await self._nursery.start(self._balancer.run)

    async def watchers(self) -> list[int]:
        """How many each server has, as it says itself."""
        found = []
        for name in self.cluster.ports:
            async with self.cluster.client("host-w", name) as client:
                found.append((await client.status()).watchers)
        return found

    def stop(self, name: str) -> None:
        self.cluster.scopes[name].cancel()

    async def host(self, name: str, *names: str, state: StateLock | None = None) -> Proxy:
        """One more, that knows these servers; the others not yet."""
        client = self.cluster.client(name, *names, port=0 if self._balancer is None else self._balancer.port)
        self._clients.append(client)
        folder = self._folder / f"{name}-{len(self.hosts)}"
        listen = {"listen": f"10.77.0.{len(self.hosts) + 1}:7600"}
        proxy = Proxy(client, folder, state, host=name, links=listen)
        self.hosts.append(proxy)
        await proxy.follower.begin()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with self._scope(proxy):
                await proxy.follower.run(task_status=task_status)

        await self._nursery.start(run)
        return proxy

    def _scope(self, proxy: Proxy) -> trio.CancelScope:
        self._running[id(proxy)] = trio.CancelScope()
        return self._running[id(proxy)]

    def kill(self, proxy: Proxy) -> None:
        """It says nothing more, not even that it goes."""
        self.hosts.remove(proxy)
        self._running[id(proxy)].cancel()

    async def add(self, count: int) -> None:
        for number in range(len(self.hosts), len(self.hosts) + count):
            await self.host(f"host-{number}")
        await self.until(lambda: all(host.follower.registration.registered for host in self.hosts), "registered")
        await self.until(lambda: all(len(host.follower.map.hosts) == len(self.hosts) for host in self.hosts), "known")

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def at(self, *names: str) -> list[int]:
        """How many hosts follow these servers."""
        places = [host.follower.standing.server for host in self.hosts]
        return [places.count(f"127.0.0.1:{self.cluster.ports[name]}") for name in names]

    async def until(self, condition: Any, what: str) -> None:
        with trio.move_on_after(WAIT):
            while not condition():
                await trio.sleep(0.02)
        assert condition(), what


@asynccontextmanager
async def fleet(world: World, place: Path, count: int, **changes: object) -> AsyncIterator[Fleet]:
    world.config = msgspec.structs.replace(world.config, **changes)
    async with cluster(world, place, servers=count) as together:
        async with trio.open_nursery() as nursery:
            made = Fleet(together, place, nursery)
            yield made
            nursery.cancel_scope.cancel()
        await made.close()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("count", "size"), [(2, 9), (3, 12)])
async def test_hosts_return_to_a_server_that_was_restarted(
    world: World, tmp_path: Path, logs: list[MutableMapping[str, Any]], count: int, size: int
) -> None:
    # More connections than one address may have that shows nobody's certificate.
    limits = msgspec.structs.replace(world.config.limits, connections_per_client=size)
    async with fleet(world, tmp_path, count, limits=limits, lease=5.0) as made:
        names = [f"control-{number + 1}" for number in range(count)]
        await made.add(size)
        made.stop("control-1")
        await made.until(lambda: sum(made.at(*names[1:])) == size, "they have fled")
        fled = len(logs)
        await made.serve("control-1")
        await made.until(lambda: max(made.at(*names)) - min(made.at(*names)) < 2, "even")
        # It is over, and nobody goes to and fro.
        before = [host.follower.standing.server for host in made.hosts]
        await trio.sleep(6 * servers.EVERY * servers.ROUND)
        assert [host.follower.standing.server for host in made.hosts] == before
        for host in made.hosts:
            assert host.follower.registration.registered is not None
            assert host.follower.standing.last_error is None
            assert len(host.follower.map.hosts) == size
            assert not host.follower.map.unconfirmed
        async with made.cluster.client("host-w", "control-1") as client:
            assert (await client.status()).watchers in (size // count, -(-size // count))
        assert EVEN in [each["event"] for each in logs]
        lost = [each for each in logs[fled:] if each["log_level"] in ("warning", "error")]
        assert lost == [], "nobody has lost anything"
        # What they are told reaches all of them.
        await made.add(1)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("count", "size"), [(2, 7), (3, 9)])
async def test_hosts_behind_one_address_return_too(
    world: World, tmp_path: Path, logs: list[MutableMapping[str, Any]], count: int, size: int
) -> None:
    """A balancer is before the servers, and hosts know its address alone."""
    limits = msgspec.structs.replace(world.config.limits, connections_per_client=4 * size)
    async with fleet(world, tmp_path, count, limits=limits, lease=5.0) as made:
        await made.behind_one_address()
        await made.add(size)
        made.stop("control-1")
        await made.until(lambda: all(host.follower.standing.server for host in made.hosts), "they have fled")
        await made.serve("control-1")
        with trio.fail_after(WAIT):
            while max(found := await made.watchers()) - min(found) > 1 or sum(found) != size:
                await trio.sleep(0.05)
        fled = len(logs)
        await trio.sleep(6 * servers.EVERY * servers.ROUND)
        found = await made.watchers()
        assert max(found) - min(found) <= 1
        assert [each for each in logs[fled:] if each["log_level"] in ("warning", "error")] == []
        assert all(host.follower.registration.registered for host in made.hosts)


def state(folder: Path, name: str) -> StateLock:
    made = StateLock(str(folder / f"state-{name}"))
    made.take()
    return made


def said(logs: list[MutableMapping[str, Any]], event: str) -> list[Any]:
    return [each["host"] for each in logs if each["event"].startswith(event)]


async def test_who_vanishes_is_said_by_each_server_and_who_leaves_or_is_revoked_by_none(
    world: World, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    """Whichever server has heard it, and whichever was told last."""
    async with fleet(world, tmp_path, 2, lease=2.0) as made:
        stays = await made.host("host-s")
        for name, server in (("host-l", "control-1"), ("host-m", "control-2"), ("host-v", "control-1")):
            await made.host(name, server)
        leaves, other, vanishes = made.hosts[1:]
        known = stays.follower.map.hosts
        await made.until(lambda: len(known) == 4, "all are there")
        await leaves.follower.leave(handed_over=False)
        await made.until(lambda: "host-l" not in known, "it has left")
        async with ControlClient([f"unix:{world.directory}/control-1/control.sock"]) as admin:
            # It was told by the other server that it is on the map, and its certificate is known from then on.
            await admin.revoke(mesh.RevokeRequest(host="host-m"))
        await made.until(lambda: "host-m" not in known, "it is revoked")
        await made.until(lambda: other.follower.registration.barred, "and knows it")
        made.kill(vanishes)
        await made.until(lambda: "host-v" not in known, "it has vanished")
        await made.until(lambda: len(said(logs, "host has vanished")) == 2, "by both servers")
        # The leases of the others have ended before: nobody has kept them alive for longer.
    assert said(logs, "host has ") == ["host-v", "host-v"]
    assert said(logs, "host left") == ["host-l"]


@pytest.mark.failure("22")
@pytest.mark.parametrize("heard", [True, False], ids=["heard of", "only watching"])
async def test_of_two_proxies_of_one_name_at_different_servers_the_later_waits(
    world: World,
    tmp_path: Path,
    logs: list[MutableMapping[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    heard: bool,
) -> None:
    """As long as the earlier one is alive: it was heard of, or watches, and not at the server that decides."""
    if not heard:
        monkeypatch.setattr(hosts, "SIGNS_OF_LIFE", 0)
    async with fleet(world, tmp_path, 2, lease=3.0) as made:
        first = await made.host("host-a", "control-1", state=state(tmp_path, "first"))
        await made.until(lambda: first.follower.registration.registered, "registered")
        second = await made.host("host-a", "control-2", state=state(tmp_path, "second"))
        await made.until(lambda: second.follower.registration.displaced, "refused")
        await made.until(lambda: first.follower.registration.namesake, "the first one is told of it, at its own server")
        assert first.follower.registration.registered is not None
        assert str(first.follower.registration.namesake).startswith("10.77.0.2:7600")
        assert "is the proxy at 10.77.0.1:7600" in str(second.follower.registration.last_error)
        # It goes on so.
        for _ in range(2):
            namesake, first.follower.registration.namesake = first.follower.registration.namesake, None
            assert namesake is not None
            await made.until(lambda: first.follower.registration.namesake, "told again")
        assert second.follower.registration.displaced
        assert not first.follower.registration.displaced
        made.kill(first)
        await made.until(lambda: second.follower.registration.registered, "the name is free")
        assert not second.follower.registration.displaced
    assert said(logs, "two proxies of one name") == ["host-a"]


@pytest.mark.failure("22")
async def test_a_restart_takes_its_predecessors_place_at_once_at_another_server_too(
    world: World, tmp_path: Path
) -> None:
    """Its predecessor, should it still be there, is told by the server that knew nobody else."""
    async with fleet(world, tmp_path, 2, lease=300.0) as made:
        secret = state(tmp_path, "host-a")
        first = await made.host("host-a", "control-1", state=secret)
        await made.until(lambda: first.follower.registration.registered, "registered")
        second = await made.host("host-a", "control-2", state=secret)
        await made.until(lambda: second.follower.registration.registered, "long before a lease of five minutes ends")

        def at(proxy: Proxy) -> str:
            found = proxy.follower.map.hosts.get("host-a")
            return found.address if found is not None else ""

        await made.until(lambda: at(first) == "10.77.0.2:7600", "everybody knows")
        async with made.cluster.client("host-a", "control-1") as client:
            with pytest.raises(Denied, match="has been registered by another process since, at 10.77.0.2:7600"):
                await client.alive("host-a", first.applied[0].host)


@pytest.mark.failure("22")
async def test_a_server_that_is_alone_again_decides_by_what_it_has_heard(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, at which the first proxy may watch, is gone, and so is that watch."""
    monkeypatch.setattr(hosts, "SIGNS_OF_LIFE", 0)
    async with fleet(world, tmp_path, 2, lease=300.0) as made:
        first = await made.host("host-a", "control-1", state=state(tmp_path, "first"))
        await made.until(lambda: first.follower.registration.registered, "registered")
        second = await made.host("host-a", "control-2", state=state(tmp_path, "second"))
        await made.until(lambda: second.follower.registration.displaced, "refused")
        made.kill(first)
        made.stop("control-1")
        await made.until(lambda: second.follower.registration.registered, "the name is free")
