"""The client by itself; tests/control/server has what it and the server say to each other."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from control.api import mesh
from control.api.client import ONLY, ControlClient, Unreachable


async def test_nobody_there_says_why(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with ControlClient([f"unix:{path}"]) as client:
        with pytest.raises(Unreachable) as caught:
            await client.hosts()
    assert str(caught.value) == f"no control server answers: unix:{path}: no such file or directory"


async def test_the_only_server_is_waited_for_longer(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    # It may just have a thousand hosts at its door; another connection would stand behind them again.
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path := f"{tmp_path}/control.sock")
        silent.listen()
        async with ControlClient([f"unix:{path}"]) as client:
            with pytest.raises(Unreachable) as caught:
                await client.hosts()
        assert trio.current_time() == pytest.approx(ONLY)
    assert str(caught.value) == f"no control server answers: unix:{path}: no answer for {ONLY:.0f} s"


def test_what_makes_no_client() -> None:
    with pytest.raises(ValueError, match="no control server"):
        ControlClient([])
    with pytest.raises(ValueError, match="need TLS"):
        ControlClient(["10.0.0.5:7601"])


def test_control_servers_bear_one_name() -> None:
    assert mesh.control_name("prod") == "control.prod.internal"
