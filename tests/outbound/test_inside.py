from __future__ import annotations

import errno
import os
import socket

import pytest

from control.base.reading.addresses import TcpAddress
from proxy.agent.agent import Agent
from proxy.outbound import inside
from proxy.outbound.inside import InsideListener, Place
from proxy.pump import seriesbudget
from proxy.pump.listener import Listener
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import End, until
from tests.telemetry.metrics.told import free_port, scrape

PLACE: Place = (7, TcpAddress("127.0.0.1", 1))


def add(agent: Agent, sock: socket.socket, service: str = "echo", caller: str = "shop") -> None:
    """As the doorkeeper does."""
    agent.outbound.inside.add(PLACE, InsideListener(sock, service, caller, "web"), None)
    agent.rebase(agent._static)
    agent.outbound.inside.listen()


def caller(hosts: Mesh, sock: socket.socket) -> End:
    made = socket.create_connection(sock.getsockname())
    made.setblocking(False)
    return hosts.hold(made)


async def test_it_serves_as_an_upstream_does() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        services = {"echo": {"deliver": service.address, "allow": [{"service": "shop"}]}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]))
        assert not agent.pools["host-b"].up, "nobody needs it yet"
        with socket.create_server(("127.0.0.1", 0)) as listening:
            add(agent, listening.dup())
            await until(lambda: agent.pools["host-b"].up, "the link")
            one = caller(hosts, listening)
            await one.send(b"hello")
            accepted = await service.accept()
            assert await accepted.read(5) == b"hello"
            accepted.finish()
            assert await one.rest() == (b"", False)


async def test_its_calls_are_counted_as_those_of_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service, port = hosts.service(), free_port()
        services = {"echo": {"deliver": service.address, "allow": [{"service": "shop"}]}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), telemetry={"listen": f"127.0.0.1:{port}"})
        with socket.create_server(("127.0.0.1", 0)) as listening:
            add(agent, listening.dup())
            one = caller(hosts, listening)
            await one.send(b"hello")
            assert await (await service.accept()).read(5) == b"hello"
            monkeypatch.setattr(seriesbudget, "FORGET", 0.0)
            for _ in range(2):
                told = await scrape(port)
                assert told("hostlane_streams_opened_total", service="echo", direction="outbound") == 1
            assert agent.stats.edges.find("outbound", "shop", "echo", "host-b").open == 1


async def test_without_anybody_who_offers_it_callers_are_reset() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            add(agent, listening.dup(), "nothing")
            assert (await caller(hosts, listening).rest()).reset


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE], ids=errno.errorcode.get)
async def test_it_says_where_nothing_can_be_accepted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(Listener):
        denied = True

        def _accept(self) -> int:
            return -code if Denied.denied else super()._accept()

    monkeypatch.setattr(inside, "Listener", Denied)
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            add(agent, listening.dup(), "nothing")
            assert agent.view.status().cannot_accept == []
            waits = caller(hosts, listening)
            await until(lambda: agent.view.failing(), "it fails")
            line = f"tcp:127.0.0.1:1 in web: cannot accept a connection: {os.strerror(code)}"
            assert agent.view.status().cannot_accept == [line]
            Denied.denied = False
            await waits.rest()
            assert agent.view.status().cannot_accept == []


async def test_it_is_removed() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            add(agent, listening.dup())
            assert agent.outbound.inside.services == {"echo"}
            assert PLACE in agent.outbound.inside
            agent.outbound.inside.end(8)
            assert PLACE in agent.outbound.inside
            agent.outbound.inside.end(7)
            agent.rebase(agent._static)
            assert "echo" not in agent.outbound.context.called
            assert list(agent.outbound.inside) == []


async def test_who_waits_at_the_end_is_the_next_ones() -> None:
    """Where the door has the listener, too; otherwise nobody else would take them."""
    for kept in (True, False):
        async with mesh() as hosts:
            agent = await hosts.start("host-a")
            with socket.create_server(("127.0.0.1", 0)) as listening:
                listening.setblocking(False)
                agent.outbound.inside.add(PLACE, InsideListener(listening.dup(), "echo", "", "web"), None)
                agent.rebase(agent._static)
                agent.outbound.inside.listen()
                agent.outbound.inside.kept = kept
                waits = caller(hosts, listening)
                agent.outbound.inside.close()
                agent.pump.settle()
                if kept:
                    listening.accept()[0].close()
                else:
                    assert (await waits.rest()).reset
                late = listening.dup()
                agent.outbound.inside.add(PLACE, InsideListener(late, "echo", "", "web"), None)
                assert late.fileno() < 0
