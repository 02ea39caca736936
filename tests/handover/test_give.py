"""The old side: everything is handed over, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.handover import give as giving
from proxy.handover.give import give, serve
from proxy.handover.parcel import HandoverError, Offer, Socket, Word, expect, receive, send
from proxy.links.door import Door
from tests.handover.rig import Estate, ends


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
