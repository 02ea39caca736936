"""The old side: everything is handed over, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from proxy.agent.handover import give as giving
from proxy.agent.handover.give import Offered, give, serve
from proxy.agent.handover.parcel import HandoverError, Offer, Socket, Word, expect, receive, say, send
from proxy.links.door import Door
from proxy.outbound.sockets import Heirloom
from tests.agent.handover.rig import Estate, ends


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def estate() -> Iterator[Estate]:
    found = Estate()
    yield found
    found.close()


async def offered(sock: trio.SocketStream, estate: Estate) -> None:
    """Take what is offered, and compare."""
    offer, _ = await receive(sock)
    assert offer == Offer(version=1, host="host-a", pid=os.getpid(), sockets=2)
    for listener in estate.listeners:
        message, descriptors = await receive(sock)
        assert isinstance(message, Socket)
        assert os.path.sameopenfile(descriptors[0], listener.fileno())
        os.close(descriptors[0])


async def test_all_steps(estate: Estate, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await offered(new, estate)
        assert estate.told == []
        await send(new, Word(word="ready"))
        await expect(new, "yours")
        assert estate.told == [f"hold {os.getpid()}"]
        await send(new, Word(word="taken", seconds=12.0))
    assert estate.told == [f"hold {os.getpid()}", "leave 12"]
    assert [(entry["event"], entry["pid"]) for entry in logs] == [("proxy handed over", os.getpid())]


@pytest.mark.parametrize("step", ["offer", "ready", "yours"])
@pytest.mark.parametrize("how", ["gone", "no", "nonsense"])
async def test_the_new_process_ends_at_some_step(
    step: str, how: str, estate: Estate, logs: list[MutableMapping[str, Any]]
) -> None:
    old, new = ends()
    async with trio.open_nursery() as nursery:
        async with new:
            nursery.start_soon(give, old, estate)
            if step != "offer":
                await offered(new, estate)
            if step == "yours":
                await send(new, Word(word="ready"))
                await expect(new, "yours")
            if how == "no":
                await send(new, Word(word="no", why="port in use"))
            elif how == "nonsense":
                await new.send_all(b"\0\0\0\2{]")
    assert estate.told[-1] == "keep"
    assert [entry["event"] for entry in logs] == ["proxy not handed over"]


async def test_it_may_change_its_mind(estate: Estate, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await offered(new, estate)
        estate.why = "it is about to stop"
        await send(new, Word(word="ready"))
        with pytest.raises(HandoverError, match="it is about to stop"):
            await expect(new, "yours")
    assert estate.told == ["keep"]
    assert [entry["error"] for entry in logs] == ["it is about to stop"]


class Stopping(Estate):
    """It closes its sockets as soon as it has begun to hand them over; their numbers go to something else."""

    def sockets(self) -> Iterator[Offered]:
        offer = list(super().sockets())
        lock = os.open(os.devnull, os.O_RDONLY)
        yield offer[0]
        yield offer[1]._replace(heirloom=Heirloom(self.listeners[1], lock))
        self.listeners[1].close()
        os.close(lock)
        self.another = os.open("/dev/zero", os.O_RDONLY)
        os.dup2(self.another, lock)


async def test_told_to_stop_while_it_sends_its_sockets_it_sends_nothing_else_in_their_place() -> None:
    estate = Stopping()
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await receive(new)
        _, descriptors = await receive(new)
        os.close(*descriptors)
        assert await receive(new) == (Word(word="no", why="it is about to stop"), [])
    assert estate.told == ["keep"]
    os.close(estate.another)
    estate.close()


async def test_it_refuses(estate: Estate, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    estate.why = "it is about to stop"
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        assert await receive(new) == (Word(word="no", why="it is about to stop"), [])
    assert estate.told == []
    assert logs[-1]["error"] == "it is about to stop"


@pytest.mark.parametrize("limit", ["GETTING_READY", "ANSWER"])
async def test_a_new_process_that_says_nothing(
    limit: str, estate: Estate, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(giving, limit, 0.05)
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await offered(new, estate)
        if limit == "ANSWER":
            await send(new, Word(word="ready"))
    assert estate.told[-1] == "keep"
    assert logs[-1]["error"] == "the other process takes too long"


async def test_cancelled_it_keeps_everything(estate: Estate) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await offered(new, estate)
        await send(new, Word(word="ready"))
        await expect(new, "yours")
        nursery.cancel_scope.cancel()
    assert estate.told[-1] == "keep"


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_a_last_word_that_has_come_counts(
    end: str, estate: Estate, mock_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """The new process begins when it has said it: the old one must not go on, whatever happens at that moment."""
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(give, old, estate)
        await offered(new, estate)
        await send(new, Word(word="ready"))
        await expect(new, "yours")
        if end == "deadline":
            mock_clock.jump(giving.ANSWER)  # the old side does not run meanwhile, and then both have happened
        else:
            nursery.cancel_scope.cancel()
        assert say(new, Word(word="taken", seconds=12.0))
    assert estate.told[-1] == "leave 12"
    assert [entry["event"] for entry in logs] == ["proxy handed over"]


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_one_that_comes_too_late_is_not_heard(end: str, estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the new process knows: it must not begin."""
    monkeypatch.setattr(giving, "ANSWER", 0.05)
    old, new = ends()
    async with new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, old, estate)
            await offered(new, estate)
            await send(new, Word(word="ready"))
            await expect(new, "yours")
            if end == "cancelled":
                nursery.cancel_scope.cancel()
        assert estate.told[-1] == "keep"
        assert not say(new, Word(word="taken"))
        with pytest.raises(HandoverError, match="takes too long" if end == "deadline" else "is ending"):
            await expect(new, "no")


async def test_serve(estate: Estate) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    estate.why = "no"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, estate, Door())
        for _ in range(2):
            async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
                # Whoever comes by TCP has no user.
                with trio.move_on_after(20):
                    assert await stream.receive_some(1) in (b"\0", b"")
        nursery.cancel_scope.cancel()
    listener.socket.close()
