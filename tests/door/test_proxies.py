from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from proxy.demo import netns
from proxy.door import proxies
from proxy.door.channel import Broken, Channel
from proxy.door.messages import (
    SOCKET,
    Ended,
    FromDoor,
    Held,
    Hello,
    Listed,
    Listener,
    Offer,
    Shown,
    Stock,
    Want,
)
from proxy.door.namespaces import cookie_of
from tests.door.engines import FakeEngine
from tests.door.house import config, running
from tests.pump.rig import until
from tests.tools import nobody

Logs = list[MutableMapping[str, Any]]
LABELS = {"hostlane.use": "redis@127.77.0.2:6379", "hostlane.offer": "web=tcp:127.0.0.1:80"}


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


@asynccontextmanager
async def at_the_door(folder: Path) -> AsyncIterator[Channel[FromDoor]]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(f"{folder}/door/{SOCKET}")
    channel: Channel[FromDoor] = Channel(sock, FromDoor)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send)
            yield channel
            nursery.cancel_scope.cancel()
    finally:
        channel.close()


async def told(channel: Channel[FromDoor]) -> list[tuple[msgspec.Struct, list[int]]]:
    """Everything until `Listed`."""
    found = []
    while True:
        message, descriptors = await channel.receive()
        if message == Listed():
            return found
        found.append((message, descriptors))


@pytest.mark.netns
async def test_what_a_proxy_is_told(tmp_path: Path, namespace: Callable[[], str], logs: Logs) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        engine.put("a", namespace(), LABELS)
        async with running(tmp_path), at_the_door(tmp_path) as channel:
            for message in (Hello(), Shown()):
                channel.say(message)
            hello, listener, offer = await told(channel)
            assert hello == (Hello(), [])
            sock = socket.socket(fileno=listener[1][0])
            cookie = cookie_of(sock)
            assert listener[0] == Listener(cookie, "127.77.0.2:6379", "redis", "", "a-name")
            assert offer == (Offer(cookie, "web", "127.0.0.1:80", "a-name"), [])
            channel.say(Want(cookie, 4, 3))
            stock, descriptors = await channel.receive()
            assert (stock, len(descriptors)) == (Stock(cookie, 4), 3)
            for descriptor in descriptors:
                os.close(descriptor)
            async with at_the_door(tmp_path) as again:
                for message in (Hello(), Held(cookie, "127.77.0.2:6379")):
                    again.say(message, [sock] * isinstance(message, Held))
                again.say(Shown())
                assert [fds for _, fds in await told(again)] == [[], [], []], "it has the listener already"
                channel.say(Ended(cookie))
            sock.close()
            await until(lambda: [each for each in logs if each["event"] == "proxy gone"], "the end of the second one")


@pytest.mark.netns
async def test_a_listener_outlives_the_door(tmp_path: Path, namespace: Callable[[], str]) -> None:
    """The proxy has kept it, and callers are in its queue."""
    name = namespace()
    with FakeEngine(tmp_path / "engine.sock") as engine:
        engine.put("a", name, {"hostlane.use": "redis@127.77.0.2:6379"})
        async with running(tmp_path), at_the_door(tmp_path) as channel:
            channel.say(Hello())
            channel.say(Shown())
            [_, (listener, [descriptor])] = await told(channel)
        assert isinstance(listener, Listener)
        with socket.socket(fileno=descriptor) as sock, netns.make_socket(name) as caller:
            caller.connect(("127.77.0.2", 6379))
            async with running(tmp_path) as door, at_the_door(tmp_path) as channel:
                channel.say(Hello())
                channel.say(Held(listener.namespace, listener.listen), [sock])
                channel.say(Shown())
                assert [message for message, _ in await told(channel)] == [Hello(), listener]
                [room] = door._rooms
                await until(lambda: len(room.listeners) == 1, "the listener")
                sock.close()
                [shown] = room.listeners.values()
                shown.accept()[0].close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([Hello(1)], "it speaks protocol 1, and this door 2: use one version"),
        ([Hello(), Shown(), Shown()], "Shown is not said here"),
    ],
)
async def test_who_says_what_is_not_said(
    tmp_path: Path, said: list[msgspec.Struct], why: str, logs: Logs
) -> None:
    with FakeEngine(tmp_path / "engine.sock"):
        async with running(tmp_path), at_the_door(tmp_path) as channel:
            for message in said:
                channel.say(message)
            with pytest.raises(Broken, match="closed the connection|is lost"):
                while True:
                    await channel.receive()
            await until(lambda: [each["why"] for each in logs if each["event"] == "proxy gone"] == [why], "why")


async def test_who_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "FIRST", 0.05)
    async with running(tmp_path), at_the_door(tmp_path) as channel:
        assert await channel.receive() == (Hello(), [])
        with pytest.raises(Broken, match="closed the connection"):
            await channel.receive()


@pytest.mark.nobody
async def test_another_user(logs: Logs) -> None:
    folder = Path(tempfile.mkdtemp(prefix="hostlane-door-"))
    path = f"{config(folder).directory}/{SOCKET}"
    program = "import socket, sys; s = socket.socket(1, 5); s.connect(sys.argv[1]); print(s.recv(99))"
    try:
        async with running(folder):
            for name in (folder, Path(path).parent, path):
                os.chmod(name, 0o777)  # whoever could reach it all the same
            argv = [*nobody.as_nobody(), sys.executable, "-c", program, path]
            done = await trio.run_process(argv, capture_stdout=True)
            assert done.stdout == b"b''\n"
            assert [each["uid"] for each in logs if each["event"] == "not a proxy"] == [65534]
    finally:
        shutil.rmtree(folder)
