"""The old side: everything is handed over, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from proxy.agent.handover import sender as giving
from proxy.agent.handover.protocol import (
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverStep,
    expect,
    receive,
    say,
    send,
)
from proxy.agent.handover.sender import OfferedListener, hand_over, serve
from proxy.links.acceptgate import AcceptGate
from proxy.outbound.sockets import InheritableListener
from tests.agent.handover.rig import RecordingSource, ends


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def handover_sockets() -> Iterator[RecordingSource]:
    found = RecordingSource()
    yield found
    found.close()


async def offered(sock: trio.SocketStream, handover_sockets: RecordingSource) -> None:
    """Take what is offered, and compare."""
    offer, _ = await receive(sock)
    assert offer == HandoverOffer(version=1, host="host-a", pid=os.getpid(), sockets=2)
    for listener in handover_sockets.listeners:
        message, descriptors = await receive(sock)
        assert isinstance(message, HandoverSocket)
        assert os.path.sameopenfile(descriptors[0], listener.fileno())
        os.close(descriptors[0])


async def test_all_steps(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        assert handover_sockets.told == []
        await send(new, HandoverStep(word="ready"))
        await expect(new, "yours")
        assert handover_sockets.told == [f"pause {os.getpid()}"]
        await send(new, HandoverStep(word="taken", seconds=12.0))
    assert handover_sockets.told == [f"pause {os.getpid()}", "retire 12"]
    assert [(entry["event"], entry["pid"]) for entry in logs] == [("proxy handed over", os.getpid())]


@pytest.mark.parametrize("step", ["offer", "ready", "yours"])
@pytest.mark.parametrize("how", ["gone", "no", "nonsense"])
async def test_the_new_process_ends_at_some_step(
    step: str, how: str, handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]
) -> None:
    old, new = ends()
    async with trio.open_nursery() as nursery:
        async with new:
            nursery.start_soon(hand_over, old, handover_sockets)
            if step != "offer":
                await offered(new, handover_sockets)
            if step == "yours":
                await send(new, HandoverStep(word="ready"))
                await expect(new, "yours")
            if how == "no":
                await send(new, HandoverStep(word="no", why="port in use"))
            elif how == "nonsense":
                await new.send_all(b"\0\0\0\2{]")
    assert handover_sockets.told[-1] == "resume"
    assert [entry["event"] for entry in logs] == ["proxy not handed over"]


async def test_it_may_change_its_mind(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        handover_sockets.why = "it is about to stop"
        await send(new, HandoverStep(word="ready"))
        with pytest.raises(HandoverError, match="it is about to stop"):
            await expect(new, "yours")
    assert handover_sockets.told == ["resume"]
    assert [entry["error"] for entry in logs] == ["it is about to stop"]


class Stopping(RecordingSource):
    """It closes its sockets as soon as it has begun to hand them over; their numbers go to something else."""

    def sockets(self) -> Iterator[OfferedListener]:
        offer = list(super().sockets())
        lock = os.open(os.devnull, os.O_RDONLY)
        yield offer[0]
        yield offer[1]._replace(inheritable=InheritableListener(self.listeners[1], lock))
        self.listeners[1].close()
        os.close(lock)
        self.another = os.open("/dev/zero", os.O_RDONLY)
        os.dup2(self.another, lock)


async def test_told_to_stop_while_it_sends_its_sockets_it_sends_nothing_else_in_their_place() -> None:
    handover_sockets = Stopping()
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await receive(new)
        _, descriptors = await receive(new)
        os.close(*descriptors)
        assert await receive(new) == (HandoverStep(word="no", why="it is about to stop"), [])
    assert handover_sockets.told == ["resume"]
    os.close(handover_sockets.another)
    handover_sockets.close()


async def test_it_refuses(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    handover_sockets.why = "it is about to stop"
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        assert await receive(new) == (HandoverStep(word="no", why="it is about to stop"), [])
    assert handover_sockets.told == []
    assert logs[-1]["error"] == "it is about to stop"


@pytest.mark.parametrize("limit", ["GETTING_READY", "ANSWER"])
async def test_a_new_process_that_says_nothing(
    limit: str, handover_sockets: RecordingSource, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(giving, limit, 0.05)
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        if limit == "ANSWER":
            await send(new, HandoverStep(word="ready"))
    assert handover_sockets.told[-1] == "resume"
    assert logs[-1]["error"] == "the other process takes too long"


async def test_cancelled_it_keeps_everything(handover_sockets: RecordingSource) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        await send(new, HandoverStep(word="ready"))
        await expect(new, "yours")
        nursery.cancel_scope.cancel()
    assert handover_sockets.told[-1] == "resume"


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_a_last_word_that_has_come_counts(
    end: str, handover_sockets: RecordingSource, mock_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """The new process begins when it has said it: the old one must not go on, whatever happens at that moment."""
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        await send(new, HandoverStep(word="ready"))
        await expect(new, "yours")
        if end == "deadline":
            mock_clock.jump(giving.ANSWER)  # the old side does not run meanwhile, and then both have happened
        else:
            nursery.cancel_scope.cancel()
        assert say(new, HandoverStep(word="taken", seconds=12.0))
    assert handover_sockets.told[-1] == "retire 12"
    assert [entry["event"] for entry in logs] == ["proxy handed over"]


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_one_that_comes_too_late_is_not_heard(
    end: str, handover_sockets: RecordingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the new process knows: it must not begin."""
    monkeypatch.setattr(giving, "ANSWER", 0.05)
    old, new = ends()
    async with new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_over, old, handover_sockets)
            await offered(new, handover_sockets)
            await send(new, HandoverStep(word="ready"))
            await expect(new, "yours")
            if end == "cancelled":
                nursery.cancel_scope.cancel()
        assert handover_sockets.told[-1] == "resume"
        assert not say(new, HandoverStep(word="taken"))
        with pytest.raises(HandoverError, match="takes too long" if end == "deadline" else "is ending"):
            await expect(new, "no")


async def test_serve(handover_sockets: RecordingSource) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    handover_sockets.why = "no"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, handover_sockets, AcceptGate())
        for _ in range(2):
            async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
                # Whoever comes by TCP has no user.
                with trio.move_on_after(20):
                    assert await stream.receive_some(1) in (b"\0", b"")
        nursery.cancel_scope.cancel()
    listener.socket.close()
