"""The socket for scrapes, over a takeover."""

from __future__ import annotations

import socket

import pytest

from control.base.reading.addresses import TcpAddress
from proxy.agent.handover.scrapelistener import ScrapeListener
from proxy.errors import StartError
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import ask, both


def test_an_address_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            ScrapeListener(TcpAddress("127.0.0.1", port))
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port} (telemetry.listen): Address already in use"


async def test_the_next_process_answers_at_the_same_socket() -> None:
    async with mesh() as hosts:
        _, near, _ = await both(hosts)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        telemetry = {"listen": f"127.0.0.1:{near}"}
        old = await hosts.takeover(
            "host-a", {**hosts.peers(b=["echo"]), "upstreams": upstreams, "telemetry": telemetry}
        )
        await until(lambda: old.draining.began, "it has let go")
        for _ in range(3):
            assert (await ask(near)).status == 200


async def test_without_one_the_next_process_does_not_listen() -> None:
    async with mesh() as hosts:
        _, near, _ = await both(hosts)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        old = await hosts.takeover("host-a", {**hosts.peers(b=["echo"]), "upstreams": upstreams})
        await until(lambda: old.draining.began, "it has let go")
        with pytest.raises(OSError):
            await ask(near)
