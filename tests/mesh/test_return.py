"""Hosts and several real control servers in front of a real etcd: hosts flee from one that is gone, and return."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.api.client import ControlClient
from control.server import servers, watching
from tests.control.server.conftest import PATIENCE, World
from tests.control.server.test_failover import Cluster
from tests.control.store.etcds import Etcd
from tests.mesh.test_follower import Proxy

pytestmark = [pytest.mark.etcd, pytest.mark.failure("31")]

WAIT = 4 * PATIENCE
EVEN = "other control servers have fewer watchers: letting some go there"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Servers of one process that end in another order than they began leave each other's signal handlers behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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

    async def serve(self, name: str) -> None:
        await self.cluster.start(name, self._nursery)

    def stop(self, name: str) -> None:
        self.cluster.scopes[name].cancel()

    async def add(self, count: int) -> None:
        for number in range(len(self.hosts), len(self.hosts) + count):
            name = f"host-{number}"
            client = self.cluster.client(name)
            self._clients.append(client)
            listen = {"listen": f"10.77.0.{number + 1}:7600"}
            proxy = Proxy(client, self._folder / name, host=name, links=listen)  # type: ignore[arg-type]
            self.hosts.append(proxy)
            await proxy.follower.begin()
            await self._nursery.start(proxy.follower.run)
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
async def fleet(world: World, place: Path, count: int) -> AsyncIterator[Fleet]:
    with Etcd(place, 1) as etcd:
        async with trio.open_nursery() as nursery:
            made = Fleet(Cluster(world, etcd), place, nursery)
            for number in range(count):
                await made.serve(f"control-{number + 1}")
            yield made
            nursery.cancel_scope.cancel()
        await made.close()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("count", "hosts"), [(2, 9), (3, 12)])
async def test_hosts_return_to_a_server_that_was_restarted(
    world: World, tmp_path: Path, logs: list[MutableMapping[str, Any]], count: int, hosts: int
) -> None:
    async with fleet(world, tmp_path, count) as made:
        names = [f"control-{number + 1}" for number in range(count)]
        await made.add(hosts)
        made.stop("control-1")
        await made.until(lambda: sum(made.at(*names[1:])) == hosts, "they have fled")
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
            assert len(host.follower.map.hosts) == hosts
            assert not host.follower.map.unconfirmed
        async with made.cluster.client("host-w", "control-1") as client:
            assert (await client.status()).watchers in (hosts // count, -(-hosts // count))
        assert EVEN in [each["event"] for each in logs]
        lost = [each for each in logs[fled:] if each["log_level"] in ("warning", "error")]
        assert lost == [], "nobody has lost anything"
        # What they are told reaches all of them.
        await made.add(1)
