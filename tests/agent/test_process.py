"""A process that is a proxy, from before its parts can be built."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from control.base.reading.addresses import ADMIN_SOCKET, TcpAddress
from proxy.agent import process
from proxy.agent.handover import activation
from proxy.agent.handover.receiver import Predecessor, PredecessorEnded
from tests.pump.agents import mesh

PATIENT = {"limits": {"stop_timeout": "20s", "open_timeout": "20s"}}
PASSED = 600
"""A descriptor that nothing else has."""


async def test_run() -> None:
    async with mesh() as hosts:
        config = hosts.agent("host-a", {}).config
        async with trio.open_nursery() as nursery:
            await nursery.start(process.run, config)
            assert (Path(config.run_dir) / ADMIN_SOCKET).is_socket()
            nursery.cancel_scope.cancel()
        assert not (Path(config.run_dir) / ADMIN_SOCKET).exists()


async def test_an_old_one_that_ends_before_it_hands_over_has_a_plain_start_for_a_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after `kill -9`: its sockets are gone with it."""
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        config = hosts.agents["host-a"].config

        async def replace(_: Predecessor, seconds: float, state: object) -> bool:
            hosts.kill("host-a")
            raise PredecessorEnded("it has ended")

        monkeypatch.setattr(Predecessor, "replace", replace)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(process.run, config, takeover=True))
            caller = hosts.call()
            await caller.send(b"to the new one")
            assert await (await service.accept()).read(14) == b"to the new one"
            nursery.cancel_scope.cancel()


@pytest.mark.failure("24")
@pytest.mark.parametrize("times", [1, 3])
async def test_sockets_of_systemd_outlast_starts_that_are_tried_again(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process to take over from ends meanwhile: the plain start that follows accepts at them."""
    tries = 0

    async def meet(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise PredecessorEnded("it has ended")

    monkeypatch.setattr(Predecessor, "meet", meet)
    monkeypatch.setattr(activation, "FIRST", PASSED)
    async with mesh() as hosts:
        await hosts.pair(**PATIENT)
        config = hosts.agents["host-a"].config
        hosts.kill("host-a")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            os.dup2(listener.fileno(), PASSED)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        echo = msgspec.structs.replace(config.upstreams["echo"], listen=TcpAddress(*address))
        async with trio.open_nursery() as nursery:
            passed = msgspec.structs.replace(config, upstreams={"echo": echo})
            await nursery.start(partial(process.run, passed, takeover=True))
            assert tries == times + 1
            await (await trio.open_tcp_stream(*address)).aclose()
            with pytest.raises(OSError):
                os.fstat(PASSED)
            nursery.cancel_scope.cancel()
        with pytest.raises(OSError):
            await trio.open_tcp_stream(*address)
