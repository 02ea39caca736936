"""Several control servers of one process, in front of a real etcd."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from control.api.client import ControlClient
from control.base.reading.addresses import TcpAddress
from control.server import serve
from control.server.config import EtcdConfig, StoreConfig
from tests.control.server.conftest import MESH, World
from tests.control.store.etcds import Etcd


class Cluster:
    """Control servers of one mesh in front of one etcd, each of which can be ended."""

    def __init__(self, world: World, etcd: Etcd, nursery: trio.Nursery) -> None:
        self.world, self.etcd, self._nursery = world, etcd, nursery
        endpoints = tuple(TcpAddress("127.0.0.1", int(url.rpartition(":")[2])) for url in etcd.endpoints)
        self._store = StoreConfig(etcd=EtcdConfig(endpoints=endpoints))
        self.scopes: dict[str, trio.CancelScope] = {}
        self.ports: dict[str, int] = {}

    async def start(self, name: str) -> None:
        """One that has run before listens where it did then."""
        run_dir, listen = str(self.world.directory / name), TcpAddress("127.0.0.1", self.ports.get(name, 0))
        config = msgspec.structs.replace(
            self.world.config, name=name, run_dir=run_dir, store=self._store, listen=listen
        )

        async def run(*, task_status: trio.TaskStatus[int]) -> None:
            with trio.CancelScope() as self.scopes[name]:
                await serve.run(config, task_status=task_status)

        self.ports[name] = await self._nursery.start(run)

    def client(self, host: str, *names: str, port: int = 0) -> ControlClient:
        """For these servers, or all; or for this port alone."""
        context = self.world.context(host)
        ports = [port] if port else [self.ports[name] for name in names or self.ports]
        return ControlClient([f"127.0.0.1:{port}" for port in ports], lambda: context, name=MESH)


@asynccontextmanager
async def cluster(world: World, place: Path, members: int = 1, servers: int = 3) -> AsyncIterator[Cluster]:
    """So many control servers before so many members of etcd. Servers of one process that end in another order than
    they began leave each other's signal handlers behind: those of before are there again in the end.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Etcd(place, members) as etcd:
            async with trio.open_nursery() as nursery:
                made = Cluster(world, etcd, nursery)
                for number in range(servers):
                    await made.start(f"control-{number + 1}")
                yield made
                nursery.cancel_scope.cancel()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Balancer:
    """One address before all servers of a cluster: each new connection goes to the next one that is there.

    Attributes:
        port: of the address.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._next = cluster, 0
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._carry, 0, host="127.0.0.1"))
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _carry(self, caller: trio.SocketStream) -> None:
        server = await self._connected()
        if server is None:
            return await caller.aclose()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with caller, server, trio.open_nursery() as nursery:
                for one, other in ((caller, server), (server, caller)):
                    nursery.start_soon(self._pass_on, one, other, nursery.cancel_scope)

    async def _connected(self) -> trio.SocketStream | None:
        ports = [*self._cluster.ports.values()]
        for _ in ports:
            self._next += 1
            with suppress(OSError):
                return await trio.open_tcp_stream("127.0.0.1", ports[self._next % len(ports)])
        return None

    @staticmethod
    async def _pass_on(one: trio.SocketStream, other: trio.SocketStream, over: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in one:
                await other.send_all(data)
        over.cancel()
