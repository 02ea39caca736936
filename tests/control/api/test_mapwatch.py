"""What a reader gets from one server after the other; tests/mesh/test_several_servers.py has real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
import trio
import trio.testing

from control.api import mesh
from control.api.mapwatch import MapWatch, WatchStream
from control.api.mesh import MapChanges, MapElsewhere, MapHeartbeat, MapSnapshot
from control.api.refusals import Unreachable

SNAPSHOT = MapSnapshot(epoch="one", revision=7, hosts=())


class Server:
    """Answers with these lines, `chunk` bytes at a time, and then goes on for ever, or ends. Counts what is open."""

    def __init__(self, *lines: mesh.WatchLine, ends: bool = False, chunk: int = 1 << 20) -> None:
        self.raw = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        self.ends, self.chunk, self.open = ends, chunk, 0

    async def chunks(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for start in range(0, len(self.raw), self.chunk):
                yield self.raw[start : start + self.chunk]
                await trio.lowlevel.checkpoint()
            if not self.ends:
                await trio.sleep_forever()
        finally:
            self.open -= 1

    async def stream(self, name: str = "a") -> WatchStream:
        http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=self.chunks())))
        response = await http.send(http.build_request("GET", "http://x"), stream=True)
        return WatchStream(name, response, http)


async def nobody(server: str, epoch: str, after: int) -> None:
    return None


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
async def test_messages_in_whatever_pieces_they_come(chunk: int) -> None:
    server = Server(SNAPSHOT, MapHeartbeat(revision=7), MapChanges(revision=8), ends=True, chunk=chunk)
    watch = MapWatch(await server.stream(), nobody)
    assert [message async for message in watch] == [SNAPSHOT, MapHeartbeat(revision=7), MapChanges(revision=8)]
    await watch.aclose()
    assert server.open == 0


@pytest.mark.parametrize("raw", [b"{}\n", b'{"type":"new"}\n', b"\xff\n", b"[" * 100_000 + b"\n"])
async def test_what_is_no_message(raw: bytes) -> None:
    server = Server()
    server.raw = raw
    watch = MapWatch(await server.stream(), nobody)
    with pytest.raises(Unreachable, match="a: a message that is not one of this version"):
        await anext(watch)
    await watch.aclose()
    assert server.open == 0


async def test_silence(autojump_clock: trio.testing.MockClock) -> None:
    watch = MapWatch(await Server(SNAPSHOT).stream(), nobody)
    assert await anext(watch) == SNAPSHOT
    with pytest.raises(Unreachable, match="a: nothing came for 15 s"):
        await anext(watch)
    await watch.aclose()


@pytest.mark.failure("31")
async def test_who_is_asked_to_go_elsewhere_goes_on_there_from_where_it_was() -> None:
    second, third = Server(MapHeartbeat(revision=9), MapElsewhere()), Server(MapChanges(revision=10), ends=True)
    first = Server(SNAPSHOT, MapChanges(revision=8), MapElsewhere(), MapChanges(revision=9), MapElsewhere())
    asked = []

    async def elsewhere(server: str, epoch: str, after: int) -> WatchStream | None:
        asked.append((server, epoch, after))
        assert (first.open, second.open) == ((1, 0) if server == "a" else (0, 1)), "the one before lasts until then"
        if len(asked) == 1:
            return None
        return await (second.stream("b") if server == "a" else third.stream("c"))

    watch = MapWatch(await first.stream(), elsewhere)
    found = [(watch.server, message.revision) async for message in watch]
    assert [revision for _, revision in found] == [7, 8, 9, 9, 10]
    assert asked == [("a", "one", 8), ("a", "one", 9), ("b", "one", 9)]
    await watch.aclose()
    assert (first.open, second.open, third.open) == (0, 0, 0)


@pytest.mark.failure("31")
async def test_nothing_stays_open_when_it_is_cancelled_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    first, second = Server(SNAPSHOT, MapElsewhere()), Server(MapHeartbeat(revision=7))

    async def elsewhere(server: str, epoch: str, after: int) -> WatchStream | None:
        stream = await second.stream("b")
        scope.cancel()
        return stream

    watch = MapWatch(await first.stream(), elsewhere)
    with trio.CancelScope() as scope:
        try:
            async for _ in watch:
                pass
        finally:
            await watch.aclose()
    assert scope.cancelled_caught
    assert (first.open, second.open) == (0, 0)
