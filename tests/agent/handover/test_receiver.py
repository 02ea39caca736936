"""The new side: what it gets, and what it makes of an old side that is not as it should be."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.agent.handover import receiver
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.agent.handover.protocol import VERSION, HandoverOffer, HandoverStep, expect, last_word, send
from proxy.agent.handover.receiver import Predecessor
from proxy.agent.handover.sender import hand_over
from proxy.errors import StartError
from proxy.mesh.statelock import StateLock
from tests.agent.handover.rig import RecordingSource
from tests.tools.sockets import dead_socket

Old = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        yield f"{folder}/next.sock"


@asynccontextmanager
async def old_side(path: str, handler: Old) -> AsyncIterator[None]:
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handler, [trio.SocketListener(listening)])
        yield
        nursery.cancel_scope.cancel()


async def test_everything_is_handed_over(path: str) -> None:
    handover_sockets, inheritance = RecordingSource(), InheritedListeners()

    async def old(sock: trio.SocketStream) -> None:
        await hand_over(sock, handover_sockets)

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", inheritance)
        assert found is not None
        assert found.pid == os.getpid()
        inheritables = inheritance.upstreams()
        assert list(inheritables) == [TcpAddress("127.0.0.1", number) for number in (1, 2)]
        assert [each.sock.getsockname() for each in inheritables.values()] == [
            listener.getsockname() for listener in handover_sockets.listeners
        ]
        await found.replace(9.0)
        with trio.fail_after(20):
            while handover_sockets.told[-1] != "retire 9":
                await trio.lowlevel.checkpoint()
    for each in inheritables.values():
        each.close()
    handover_sockets.close()


@pytest.mark.failure(22)
async def test_the_lock_of_the_state_dir_goes_with_the_sockets(path: str, tmp_path: Path) -> None:
    source = RecordingSource()
    source.state = StateLock(str(tmp_path))
    source.state.take()

    async def old(sock: trio.SocketStream) -> None:
        await hand_over(sock, source)

    async with old_side(path, old):
        for taken in (False, True):
            inheritance, new = InheritedListeners(), StateLock(str(tmp_path))
            found = await Predecessor.meet(path, "host-a", inheritance)
            assert found is not None
            assert found.secret == source.state.secret
            if taken:
                source.state.close()
                new.inherit(found.take_lock(), found.pid)
            # Of a successor that ends now, the old one keeps its lock.
            found.close()
            inheritance.close()
            with pytest.raises(StartError, match="uses it"):
                StateLock(str(tmp_path)).take()
            new.close()
    last = StateLock(str(tmp_path))
    last.take()
    last.close()
    source.close()


async def test_nobody_is_there(path: str) -> None:
    assert await Predecessor.meet(path, "host-a", InheritedListeners()) is None
    dead_socket(path)
    assert await Predecessor.meet(path, "host-a", InheritedListeners()) is None


async def test_something_else_is_there(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(StartError, match=rf"^cannot take over from the proxy behind {path}: "):
            await Predecessor.meet(path, "host-a", InheritedListeners())


async def says(sock: trio.SocketStream, *messages: HandoverOffer | HandoverStep) -> None:
    async with sock:
        for message in messages:
            await send(sock, message)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "the other process is gone"),
        ([HandoverStep(word="no", why="it is about to stop")], "it is about to stop"),
        ([HandoverStep(word="yours")], ""),
        (
            [HandoverOffer(version=VERSION + 1, host="host-a", pid=os.getpid(), sockets=0)],
            "it is of a version that hands over in another",
        ),
        (
            [HandoverOffer(version=VERSION, host="host-z", pid=os.getpid(), sockets=0)],
            "it is the proxy of host 'host-z', this is that of",
        ),
        (
            [HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1), HandoverStep(word="x")],
            "it sends .* instead of a socket",
        ),
        ([HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1)], "the other process is gone"),
    ],
)
async def test_an_old_side_that_does_not_hand_over(
    path: str, messages: list[HandoverOffer | HandoverStep], why: str
) -> None:
    async def old(sock: trio.SocketStream) -> None:
        await says(sock, *messages)

    async with old_side(path, old):
        with pytest.raises(StartError, match=rf"^cannot take over from the proxy behind {path}: {why}") as caught:
            await Predecessor.meet(path, "host-a", InheritedListeners())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ([HandoverStep(word="no", why="changed my mind")], "changed my mind"),
        ([HandoverStep(word="taken")], "the other process does not say 'yours'"),
    ],
)
async def test_an_old_side_that_keeps_it_in_the_end(path: str, after: list[HandoverStep], why: str) -> None:
    async def old(sock: trio.SocketStream) -> None:
        await says(sock, HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=0), *after)

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", InheritedListeners())
        assert found is not None
        with pytest.raises(StartError, match=rf"^process {os.getpid()} does not hand over: {why}"):
            await found.replace(1.0)
        found.close()
        found.close()


async def test_an_old_side_that_ends_without_a_word_has_nothing_any_more(path: str) -> None:
    """It is dead: if the new one did not go on, nobody would answer."""

    async def old(sock: trio.SocketStream) -> None:
        await says(sock, HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=0))

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", InheritedListeners())
        assert found is not None
        await trio.testing.wait_all_tasks_blocked()
        assert not await found.replace(1.0)


async def test_an_old_side_that_has_listened_long_enough(path: str) -> None:
    """It keeps its sockets and says so, just when the new one begins."""

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            await send(sock, HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=0))
            await expect(sock, "ready")
            await send(sock, HandoverStep(word="yours"))
            assert last_word(sock) is None
            await send(sock, HandoverStep(word="no", why="it takes too long"))

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", InheritedListeners())
        assert found is not None
        with pytest.raises(StartError, match="does not hand over: it takes too long"):
            await found.replace(1.0)


async def test_an_old_side_that_says_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "ANSWER", 0.05)

    async def silent(sock: trio.SocketStream) -> None:
        async with sock:
            await trio.sleep_forever()

    async with old_side(path, silent):
        with pytest.raises(StartError, match=r"no answer in 0\.05 s"):
            await Predecessor.meet(path, "host-a", InheritedListeners())


def test_the_path_is_one_of_run_dir(path: str) -> None:
    assert Path(path).name == "next.sock"
