"""Whole proxies in one trio run, on addresses of the loopback network, and services that the test accepts for."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import randint
from typing import Any

import trio

from proxy.agent.agent import Agent
from proxy.config.schema import Config, parse
from proxy.demo.certificates import CertificateAuthority
from proxy.mesh.follower import MapClient
from proxy.pump.options import LocalSocket
from tests.pump.rig import End, Kind, until
from tests.tools.sockets import PATIENCE, fds_since, open_fds
from tests.tools.sockets import parse as parse_address

PORT = 7600


class Service:
    """A service that listens; the test accepts. ``address`` is what ``deliver`` takes."""

    def __init__(self, mesh: Mesh, address: str, backlog: int = 4096) -> None:
        family, target = parse_address(address)
        self._mesh = mesh
        sock = socket.socket(family)
        sock.setblocking(False)
        sock.bind(target)
        sock.listen(backlog)
        mesh.sockets.append(sock)
        self.raw = sock
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.address = address if family == socket.AF_UNIX else "tcp:{}:{}".format(*sock.getsockname()[:2])

    async def accept(self) -> End:
        sock, _ = await self.sock.accept()
        return self._mesh.hold(socket.socket(fileno=sock.detach()))


class Mesh:
    """Hosts by name; ``with`` nothing: `start` runs them until the end of the block that made this.

    Attributes:
        folder: short, for sockets.
    """

    def __init__(
        self, folder: Path, nursery: trio.Nursery, agents: dict[str, Agent], authority: CertificateAuthority | None
    ) -> None:
        self.folder = folder
        self.agents = agents
        self.sockets: list[socket.socket] = []
        self._ends: list[End] = []
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery
        self._authority = authority
        self._net = f"127.{randint(1, 254)}.{randint(0, 255)}"
        self.addresses = {f"host-{letter}": f"{self._net}.{number}:{PORT}" for number, letter in enumerate("abcd", 1)}

    def service(self, name: str = "echo", kind: Kind = "unix", backlog: int = 4096) -> Service:
        """A service for some host's ``deliver``."""
        return Service(self, f"unix:{self.folder}/{name}.service" if kind == "unix" else "tcp:127.0.0.1:0", backlog)

    def upstream(self, host: str, name: str, kind: Kind = "unix") -> str:
        """Where a host listens for callers of a service."""
        return (
            f"unix:{self.folder}/{host}-{name}.sock"
            if kind == "unix"
            else f"tcp:{self._net}.{10 + sorted(self.addresses).index(host)}:{PORT}"
        )

    def agent(self, host: str, sections: Mapping[str, Any], control: MapClient | None = None) -> Agent:
        """A proxy, not running yet; `control` is asked instead of the servers of its configuration."""
        self.agents[host] = Agent(self.config(host, sections), control=control)
        return self.agents[host]

    def config(self, host: str, sections: Mapping[str, Any]) -> Config:
        """The configuration of a host, with these sections."""
        config: dict[str, Any] = {
            "host": host,
            "run_dir": str(self.folder / host),
            "socket_dir": str(self.folder / f"{host}-services"),
            "links": {"listen": self.addresses[host], **self._security(host)},
        }
        for name, section in sections.items():
            config[name] = {**config.get(name, {}), **section}
        return parse(json.dumps(config), f"{host}.yaml")

    def _security(self, host: str) -> dict[str, Any]:
        if self._authority is None:
            return {"security": "none"}
        folder = self.folder / f"{host}-tls"
        folder.mkdir(exist_ok=True)
        return {"security": "mtls", "tls": self._authority.write(folder, host)}

    def peers(self, **services: list[str]) -> dict[str, Any]:
        """The section of that name: ``peers(b=["echo"])``."""
        return {
            "peers": {
                f"host-{letter}": {"address": self.addresses[f"host-{letter}"], "services": names}
                for letter, names in services.items()
            }
        }

    async def start(self, host: str, plane: MapClient | None = None, /, **sections: Any) -> Agent:
        """A proxy that runs."""
        agent = self.agent(host, sections, plane)
        await self.run(host)
        return agent

    async def takeover(self, host: str, sections: Mapping[str, Any], control: MapClient | None = None) -> Agent:
        """Another proxy takes the place of the one that runs: that one, which is ``HOST old`` from now on."""
        old, name = self.agents.pop(host), f"{host} old"
        self.agents[name], self._scopes[name] = old, self._scopes.pop(host)
        self.agents[host] = Agent(self.config(host, sections), control=control, takeover=True)
        await self.run(host)
        return old

    async def run(self, host: str) -> None:
        await self._nursery.start(self._run, host)

    async def _run(self, host: str, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._scopes[host]:
            await self.agents[host].run(task_status=task_status)

    def kill(self, host: str) -> None:
        """Cancel a proxy."""
        if scope := self._scopes.get(host):
            self.agents[host].outbound.close()
            scope.cancel()

    async def pair(self, kind: Kind = "unix", to: Kind = "unix", **more: Any) -> Service:
        """host-a, through which `call` reaches the service that is returned, which is on host-b."""
        service = self.service(kind=to)
        await self.start("host-b", **self.peers(a=[]), services={"echo": {"deliver": service.address}}, **more)
        upstreams = {"echo": {"listen": self.upstream("host-a", "echo", kind)}}
        await self.start("host-a", **self.peers(b=["echo"]), upstreams=upstreams, **more)
        return service

    def call(self, host: str = "host-a", name: str = "echo", kind: Kind = "unix") -> End:
        """A new caller."""
        family, target = parse_address(self.upstream(host, name, kind))
        caller = self.hold(socket.socket(family))
        caller.raw.setblocking(True)
        caller.raw.connect(target)
        caller.raw.setblocking(False)
        return caller

    def hold(self, sock: socket.socket) -> End:
        end = End(sock)
        self._ends.append(end)
        return end

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for sock in self.sockets:
            sock.close()


async def two_peers(hosts: Mesh, first: dict[str, Any], second: dict[str, Any]) -> None:
    """host-a calls ``echo``, which host-b and host-c say they offer; these sections say what they really do."""
    await hosts.start("host-b", **hosts.peers(a=[]), services=first)
    await hosts.start("host-c", **hosts.peers(a=[]), services=second)
    upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
    agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=["echo"]), upstreams=upstreams)
    await until(lambda: all(pool.up for pool in agent.pools.values()), "both links")


@asynccontextmanager
async def mesh(*, mtls: bool = False, patience: float = PATIENCE) -> AsyncIterator[Mesh]:
    """Checks at the end that no descriptor, task or file is left of any proxy, nor a byte of a budget."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before, tasks = open_fds(), trio.lowlevel.current_statistics().tasks_living
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    agents: dict[str, Agent] = {}
    try:
        with trio.fail_after(patience):
            async with trio.open_nursery() as nursery:
                running = Mesh(folder, nursery, agents, CertificateAuthority() if mtls else None)
                try:
                    yield running
                finally:
                    for host in agents:
                        running.kill(host)
                    nursery.cancel_scope.cancel()
                    running.close()
        left = [str(path) for path in folder.rglob("*") if path.is_socket() and path.suffix != ".service"]
        assert left == []
        for agent in agents.values():
            check_empty(agent)
    finally:
        for agent in agents.values():
            close_leftovers(agent)
        shutil.rmtree(folder)
        # Several proxies in one process put them back in the wrong order.
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    # A thread that connects to a service whose backlog is full ends by itself, a moment after the service.
    await until(lambda: not fds_since(before), "no descriptor left")


def close_leftovers(agent: Agent) -> None:
    """So that a test that finds some does not spoil the next."""
    agent.outbound.sockets.replace({})
    agent.outbound.sockets.discard()
    agent.pump._epoll.close()  # of one that never ran
    for watcher in agent.pump.watchers():
        if isinstance(sock := getattr(watcher, "sock", None), LocalSocket):
            sock.close()


def check_empty(agent: Agent) -> None:
    """Nothing of any stream is left."""
    assert agent.stats.open == 0
    assert not agent.outbound.context.calls
    assert not agent.outbound.context.splices
    assert not any(tally.count for tally in agent.inbound.open.values())
    assert not any(tally.count for tally in agent.outbound.context.held.values())
    pump = agent.pump
    assert not any(pump.lanes)
    assert not pump.watchers()
    assert pump.budget.used == 0
    assert not any(account.used for account in pump.budget.accounts.values())
    assert pump.slabs.in_use == 0
