"""The door that the benchmarks have, which knows no engine."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from benchmarks import door
from proxy.door.channel import Channel
from proxy.door.messages import SOCKET, FromDoor, Hello, Listed, Listener, Shown
from tests.door.conftest import namespace  # noqa: F401 - a fixture
from tests.pump.rig import until

pytestmark = pytest.mark.netns


async def test_it_hands_over_what_the_label_asks_for(namespace: Callable[[], str], tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "door"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.run, str(path), namespace(), "hostlane.use=bench@127.77.0.2:7701")
        await until((path / SOCKET).exists, "the door's socket")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(path / SOCKET))
        channel: Channel[FromDoor] = Channel(sock, FromDoor)
        nursery.start_soon(channel.send)
        channel.say(Hello())
        channel.say(Shown())
        heard: list[msgspec.Struct] = []
        while not any(isinstance(message, Listed) for message in heard):
            message, descriptors = await channel.receive()
            heard.append(message)
            for descriptor in descriptors:
                os.close(descriptor)
        [listener] = [message for message in heard if isinstance(message, Listener)]
        assert (listener.service, listener.listen) == ("bench", "127.77.0.2:7701")
        nursery.cancel_scope.cancel()
    channel.close()
