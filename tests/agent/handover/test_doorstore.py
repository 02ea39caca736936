from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from proxy.agent.handover import doorstore
from proxy.config.schema import DoorConfig
from proxy.door.messages import SOCKET
from proxy.door.proxies import Proxies
from proxy.door.rooms import Rooms


def config(folder: Path) -> DoorConfig:
    return DoorConfig(directory=str(folder), user=os.geteuid())


async def test_what_is_kept_is_fetched_and_stays_kept(tmp_path: Path) -> None:
    proxies = Proxies(os.geteuid(), lambda: None)
    proxies.rooms = Rooms(str(tmp_path), proxies.tell)
    waiting = socket.create_server(("127.0.0.1", 0))
    proxies.kept.keep("hostlane-1", waiting)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / SOCKET))
        listening.listen()
        listening.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxies.serve, listening)
            for _ in range(2):
                [(name, sock)] = await trio.to_thread.run_sync(doorstore.fetch, config(tmp_path))
                assert name == "hostlane-1"
                assert sock.getsockname() == waiting.getsockname()
                sock.close()
            nursery.cancel_scope.cancel()
    proxies.kept.close()


def test_a_door_that_is_away(tmp_path: Path) -> None:
    assert doorstore.fetch(config(tmp_path)) == []


def test_a_door_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstore, "PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / SOCKET))
        listening.listen()
        assert doorstore.fetch(config(tmp_path)) == []
