"""Listening for local callers."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.errors import StartError
from proxy.pump.options import KeepAlive
from tests.pump.agents import mesh
from tests.pump.rig import until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


PEERS = {"b": ["echo", "web"]}


def path_of(address: str) -> Path:
    return Path(address.removeprefix("unix:"))


async def test_sockets_are_there_with_their_modes_while_the_proxy_runs_and_no_longer() -> None:
    async with mesh() as hosts:
        echo, web = hosts.upstream("host-a", "echo"), hosts.upstream("host-a", "web")
        upstreams = {"echo": {"listen": echo}, "web": {"listen": web, "mode": "0600"}}
        agent = await hosts.start("host-a", **hosts.peers(**PEERS), upstreams=upstreams)
        assert stat.S_IMODE(path_of(echo).stat().st_mode) == 0o666
        assert stat.S_IMODE(path_of(web).stat().st_mode) == 0o600
        agent.outbound.stop_listening()
        agent.outbound.stop_listening()
        assert not path_of(echo).exists()
        assert not path_of(web).exists()


async def test_one_that_cannot_listen_leaves_none() -> None:
    async with mesh() as hosts:
        echo = hosts.upstream("host-a", "echo")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            upstreams = {"echo": {"listen": echo}, "web": {"listen": f"tcp:127.0.0.1:{port}"}}
            agent = hosts.agent("host-a", {**hosts.peers(**PEERS), "upstreams": upstreams})
            with pytest.raises(StartError, match=r"^upstreams\.web\.listen: tcp:127\.0\.0\.1:\d+: the port is in use$"):
                agent.outbound.open()
        assert not path_of(echo).exists()
        agent.outbound.close()


async def test_an_address_of_another_machine() -> None:
    async with mesh() as hosts:
        agent = hosts.agent("host-a", {**hosts.peers(**PEERS), "upstreams": {"web": {"listen": "tcp:192.0.2.1:7"}}})
        with pytest.raises(StartError, match=r"^upstreams\.web\.listen: tcp:192\.0\.2\.1:7: Cannot assign requested"):
            agent.outbound.open()


async def test_each_upstream_calls_its_service() -> None:
    async with mesh() as hosts:
        services = {name: hosts.service(name) for name in ("echo", "web")}
        await hosts.start(
            "host-b",
            **hosts.peers(a=[]),
            services={name: {"deliver": service.address} for name, service in services.items()},
        )
        upstreams = {name: {"listen": hosts.upstream("host-a", name)} for name in services}
        agent = await hosts.start("host-a", **hosts.peers(**PEERS), upstreams=upstreams)
        for name, service in services.items():
            await hosts.call(name=name).send(name.encode())
            assert await (await service.accept()).read(len(name)) == name.encode()
        assert agent.pools["host-b"].streams == agent.stats.open == agent.stats.opened == 2


@pytest.mark.failure(9)
async def test_many_callers_share_one_link() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        for _ in range(100):
            hosts.call()
        for _ in range(100):
            await service.accept()
        await until(lambda: agent.stats.open == 100, "all")
        assert len(agent.pools["host-b"].links) == 1
        assert agent.pools["host-b"].dials == 1


async def test_an_idle_peer_that_has_less_to_do_is_dialled_for_the_next_call() -> None:
    """Peers whose links were closed come back when the others are busy, and no call waits for that."""
    async with mesh() as hosts:
        service = hosts.service()
        for letter in "bc":
            await hosts.start(f"host-{letter}", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=["echo"]), upstreams=upstreams)
        busy, idle = agent.pools.values()
        await until(lambda: busy.up and idle.up, "both links")
        hosts.call()
        await service.accept()
        if idle.streams:
            busy, idle = idle, busy
        idle.links[0].retire()
        await until(lambda: not idle.links, "no link")
        assert idle.idle
        hosts.call()
        await service.accept()
        assert (busy.streams, idle.streams) == (2, 0), "the call did not wait"
        await until(lambda: idle.up, "a link again")
        hosts.call()
        await service.accept()
        assert (busy.streams, idle.streams) == (2, 1)


@pytest.mark.failure("29")
async def test_callers_through_tcp_are_probed_as_it_is_configured_and_configured_anew() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": hosts.service().address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        sections = {**hosts.peers(b=["echo"]), "upstreams": upstreams}
        agent = await hosts.start("host-a", **sections, tcp={"keepalive_idle": "7s"})

        async def idle_time(calls: int) -> int:
            hosts.call(kind="tcp")
            await until(lambda: agent.stats.open == calls, "the call")
            lanes = list(agent.pools["host-b"].links[0].session.streams.values())
            sock = lanes[-1].sock
            assert sock is not None
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

        await until(lambda: agent.pools["host-b"].up, "the link")
        assert await idle_time(1) == 7
        agent.apply(hosts.config("host-a", {**sections, "tcp": {"keepalive_idle": "9s"}}))
        assert await idle_time(2) == 9
        assert agent.connector.keep_alive == KeepAlive(9, 15, 4)
