"""The new side: what it gets, and what it makes of an old side that is not as it should be."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.agent.handover import receiver
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.agent.handover.protocol import (
    VERSION,
    HandoverDescriptors,
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverState,
    HandoverStep,
    Message,
    expect,
    last_word,
    send,
)
from proxy.agent.handover.receiver import Predecessor, PredecessorEnded
from proxy.agent.handover.sender import hand_over
from proxy.errors import StartError
from proxy.mesh.statelock import StateLock
from tests.agent.handover.rig import RecordingSource
from tests.tools.sockets import dead_socket, fds_since, open_fds

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
        for each in inheritables.values():
            assert not each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "it only stands in for the socket"
        assert handover_sockets.told == []
        assert await found.replace(9.0, None)
        assert [each.sock.getsockname() for each in inheritables.values()] == [
            listener.getsockname() for listener in handover_sockets.listeners
        ]
        for each in inheritables.values():
            assert each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert not os.get_inheritable(each.sock.fileno())
        with trio.fail_after(20):
            while handover_sockets.told[-1] != "retire 9":
                await trio.lowlevel.checkpoint()
    for each in inheritables.values():
        each.close()
    handover_sockets.close()


@pytest.mark.failure("22")
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
            assert (found.lock, found.secret) == (source.state.identity, ""), "a name, and nothing to have it with"
            new.expect(found.lock, found.pid)
            assert new.descriptor is None
            if taken:
                assert await found.replace(9.0, new)
                assert found.secret == source.state.secret
                assert new.identity == source.state.identity
                source.state.close()
            # Of a successor that ends now, the old one keeps its lock.
            found.close()
            for each in inheritance.upstreams().values():
                each.close()
            with pytest.raises(StartError, match="uses it"):
                StateLock(str(tmp_path)).take()
            new.close()
    last = StateLock(str(tmp_path))
    last.take()
    last.close()
    source.close()


@pytest.mark.failure("21", "22")
@pytest.mark.parametrize("named", [True, False])
async def test_a_lock_that_is_not_as_it_was_named_is_not_taken(path: str, tmp_path: Path, named: bool) -> None:
    """The old process goes on: the new one does not say its last word."""
    before, heard = open_fds(), list[HandoverStep | None]()

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            lock = (1, 2) if named else None
            await send(sock, HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=0, lock=lock))
            await expect(sock, "ready")
            await send(sock, HandoverStep(word="yours"))
            await send(sock, HandoverState(secret="5ec4e7"), [] if named else [sock.socket.fileno()])
            await trio.lowlevel.wait_readable(sock.socket)
            heard.append(last_word(sock))

    state = StateLock(str(tmp_path))
    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", InheritedListeners())
        assert found is not None
        with pytest.raises(StartError, match="it sends state instead of its state_dir's lock") as caught:
            await found.replace(1.0, state)
        assert "5ec4e7" not in str(caught.value)
        with trio.fail_after(20):
            while not heard:
                await trio.lowlevel.checkpoint()
    assert heard == [None]
    assert state.descriptor is None
    assert not fds_since(before)


@pytest.mark.failure("22")
async def test_a_state_dir_of_somebody_else_is_found_before_anything_is_taken(path: str, tmp_path: Path) -> None:
    other, source = StateLock(str(tmp_path / "other")), RecordingSource()
    source.state = StateLock(str(tmp_path / "old"))
    for each in (other, source.state):
        each.take()

    async def old(sock: trio.SocketStream) -> None:
        await hand_over(sock, source)

    inheritance, new = InheritedListeners(), StateLock(str(tmp_path / "other"))
    new.take(patient=True)
    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", inheritance)
        assert found is not None
        with pytest.raises(StartError, match=r"uses it, which is not the proxy to take over from"):
            new.expect(found.lock, found.pid)
        found.close()
        with trio.fail_after(20):
            while source.told != ["resume"]:
                await trio.lowlevel.checkpoint()
    for each in (other, source.state, inheritance, source):
        each.close()


async def test_nobody_is_there(path: str) -> None:
    assert await Predecessor.meet(path, "host-a", InheritedListeners()) is None
    dead_socket(path)
    assert await Predecessor.meet(path, "host-a", InheritedListeners()) is None


async def test_something_else_is_there(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(StartError, match=rf"^cannot take over from the proxy behind {path}: "):
            await Predecessor.meet(path, "host-a", InheritedListeners())


async def says(sock: trio.SocketStream, *messages: Message) -> None:
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
            [
                HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1),
                HandoverSocket(kind="upstream", address="tcp:1.2.3.4:5", family=socket.AF_PACKET),
            ],
            "it sends a socket of family 17: 'tcp:1.2.3.4:5'",
        ),
        (
            [HandoverOffer(version=VERSION + 1, host="host-a", pid=os.getpid(), sockets=0)],
            "it is of a newer version, which hands over in another way: this one step is a restart",
        ),
        (
            [HandoverOffer(version=1, host="host-a", pid=os.getpid(), sockets=1)],
            r"it is of an older version, which hands over in another way: this one step is a restart \(docs/upgrade",
        ),
        (
            [HandoverOffer(version=VERSION, host="host-z", pid=os.getpid(), sockets=0)],
            "it is the proxy of host 'host-z', this is that of",
        ),
        (
            [HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1), HandoverStep(word="x")],
            "it sends .* instead of the name of a socket",
        ),
        ([HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1)], "the other process is gone"),
    ],
)
async def test_an_old_side_that_does_not_hand_over(
    path: str, messages: list[Message], why: str
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
            await found.replace(1.0, None)
        found.close()
        found.close()


NAMED = HandoverSocket(kind="upstream", address="tcp:127.0.0.1:1", family=socket.AF_INET)
OFFER = HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=1)


async def test_an_old_side_that_ends_before_it_says_yours(path: str) -> None:
    """It is dead, and its sockets with it: somebody has to start."""

    async def old(sock: trio.SocketStream) -> None:
        await says(sock, OFFER, NAMED)

    inheritance = InheritedListeners()
    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", inheritance)
        assert found is not None
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PredecessorEnded):
            await found.replace(1.0, None)
    inheritance.close()


@pytest.mark.parametrize("sent", [True, False])
async def test_an_old_side_that_ends_among_its_descriptors(path: str, sent: bool) -> None:
    """When all have come, the new one has the sockets: if it did not go on, nobody would answer."""

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            await send(sock, OFFER)
            await send(sock, NAMED)
            await expect(sock, "ready")
            await send(sock, HandoverStep(word="yours"))
            await send(sock, HandoverState())
            if sent:
                await send(sock, HandoverDescriptors(kind=NAMED.kind, address=NAMED.address), [listener.fileno()])

    inheritance = InheritedListeners()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with old_side(path, old):
            found = await Predecessor.meet(path, "host-a", inheritance)
            assert found is not None
            if sent:
                await found.replace(1.0, None)
                [inherited] = inheritance.upstreams().values()
                assert inherited.sock.getsockname() == listener.getsockname()
                inherited.close()
            else:
                with pytest.raises(PredecessorEnded):
                    await found.replace(1.0, None)
    inheritance.close()


@pytest.mark.parametrize(
    ("message", "count", "why"),
    [
        (HandoverDescriptors(kind="links", address=NAMED.address), 1, "instead of the descriptors of tcp:127.0.0.1:1"),
        (HandoverDescriptors(kind=NAMED.kind, address=NAMED.address), 0, "instead of the descriptors of tcp:127"),
        (HandoverDescriptors(kind=NAMED.kind, address=NAMED.address), 2, "instead of the descriptors of tcp:127"),
        (HandoverStep(word="no", why="it is about to stop"), 0, "it is about to stop"),
        (HandoverStep(word="yours"), 0, "instead of the descriptors"),
    ],
)
async def test_an_old_side_that_sends_other_descriptors(path: str, message: Message, count: int, why: str) -> None:
    before = open_fds()

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            await send(sock, OFFER)
            await send(sock, NAMED)
            await expect(sock, "ready")
            await send(sock, HandoverStep(word="yours"))
            await send(sock, HandoverState())
            await send(sock, message, [sock.socket.fileno()] * count)

    inheritance = InheritedListeners()
    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", inheritance)
        assert found is not None
        with pytest.raises(StartError, match=f"does not hand over: .*{why}"):
            await found.replace(1.0, None)
    inheritance.close()
    assert not fds_since(before)


async def test_an_older_side_sends_descriptors_at_once_and_none_is_kept(path: str) -> None:
    """Version 1 sent them with the names."""
    before = open_fds()

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            await send(sock, HandoverOffer(version=1, host="host-a", pid=os.getpid(), sockets=1))
            await send(sock, NAMED, [listener.fileno()])
            with suppress(HandoverError):
                await expect(sock, "ready")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with old_side(path, old):
            with pytest.raises(StartError, match="it is of an older version"):
                await Predecessor.meet(path, "host-a", InheritedListeners())
    assert not fds_since(before)


async def test_a_socket_that_nobody_wanted_is_closed_when_it_comes(path: str) -> None:
    handover_sockets, inheritance = RecordingSource(), InheritedListeners()
    before = open_fds()

    async def old(sock: trio.SocketStream) -> None:
        await hand_over(sock, handover_sockets)

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", inheritance)
        assert found is not None
        inheritance.close()
        assert await found.replace(9.0, None)
    assert not fds_since(before)
    handover_sockets.close()


async def test_an_old_side_that_has_listened_long_enough(path: str) -> None:
    """It keeps its sockets and says so, just when the new one begins."""

    async def old(sock: trio.SocketStream) -> None:
        async with sock:
            await send(sock, HandoverOffer(version=VERSION, host="host-a", pid=os.getpid(), sockets=0))
            await expect(sock, "ready")
            await send(sock, HandoverStep(word="yours"))
            await send(sock, HandoverState())
            assert last_word(sock) is None
            await send(sock, HandoverStep(word="no", why="it takes too long"))

    async with old_side(path, old):
        found = await Predecessor.meet(path, "host-a", InheritedListeners())
        assert found is not None
        with pytest.raises(StartError, match="does not hand over: it takes too long"):
            await found.replace(1.0, None)


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
