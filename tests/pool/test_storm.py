"""Links that are lost again and again under streams that do all that streams do: every byte is compared."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import pytest
import trio

from proxy.errors import CloseReason
from proxy.mux.frames import Open, encode_open
from proxy.pump.lane import Lane
from proxy.pump.session import CallHandler
from tests.pool.hosts import Record, Recording, Waiting, two_hosts, until

pytestmark = pytest.mark.failure(3, 7, 20)

STREAMS = 24
KILLS = int(os.environ.get("HOSTLANE_STORM_KILLS", "12"))
SEED = int(os.environ.get("HOSTLANE_STORM_SEED", "1"))
"""For a longer one, or another one."""
PATTERN = Random(1).randbytes(65521) * 3


def part(key: int, offset: int, size: int) -> bytes:
    """Bytes of the endless text that is this key's, at most as many."""
    at = (offset + key * 7919) % 65521
    return PATTERN[at : at + size]


def pair() -> tuple[socket.socket, trio.SocketStream]:
    """A lane's end, and the application's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


class Service(CallHandler):
    """Delivers calls to whoever waits for them by the number that the service's name is."""

    def __init__(self, nursery: trio.Nursery, serve: Callable[[int, trio.SocketStream], Awaitable[None]]) -> None:
        self.nursery, self.serve = nursery, serve

    def call(self, lane: Lane, call: Open) -> None:
        lane.observer = Record()
        ours, theirs = pair()
        lane.attach(ours, tcp=False)
        lane.start_called()
        self.nursery.start_soon(self.serve, int(call.service), theirs)


async def write(stream: trio.SocketStream, key: int, size: int, random: Random) -> None:
    offset = 0
    while offset < size:
        piece = part(key, offset, min(size - offset, random.choice((1, 60, 900, 16384, 65000))))
        await stream.send_all(piece)
        offset += len(piece)
        if random.random() < 0.2:
            await trio.sleep(random.random() * 0.005)


async def check(stream: trio.SocketStream, key: int, random: Random, stop_at: int | None = None) -> int:
    """Read to the end, or so far; every byte is the one that was written."""
    offset = 0
    while stop_at is None or offset < stop_at:
        data = await stream.receive_some(random.choice((1, 100, 5000, 65536)))
        if not data:
            break
        while data:
            piece = part(key, offset, len(data))
            assert data[: len(piece)] == piece, (key, offset)
            offset += len(piece)
            data = data[len(piece) :]
        if random.random() < 0.1:
            await trio.sleep(random.random() * 0.01)
    return offset


class Storm:
    """Streams from host-a to host-b, each with sizes of its own, until `over`."""

    def __init__(self, a: Recording, b: Recording, seed: int) -> None:
        self.a, self.b, self.random = a, b, Random(seed)
        self.over = False
        self.whole = self.aborted = 0
        self.plans: dict[int, tuple[int, int, str]] = {}

    def plan(self, number: int) -> tuple[int, int, str]:
        random = self.random
        there, back = random.choices((0, 1, 100, 3000, 40_000, 500_000, 2_000_000), k=2)
        kind = random.choice(("whole", "whole", "whole", "caller aborts", "service aborts"))
        self.plans[number] = there, back, kind
        return self.plans[number]

    async def serve(self, number: int, stream: trio.SocketStream) -> None:
        there, back, kind = self.plans[number]
        random = Random(number)
        async with stream:
            if kind == "service aborts":
                with suppress(trio.BrokenResourceError):
                    await check(stream, number, random, there // 2)
                return
            got = -1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, stream, number, back, random)
                with suppress(trio.BrokenResourceError):
                    got = await check(stream, number, random)
            if kind == "whole":
                assert got == there, (number, got, there)

    async def _answer(self, stream: trio.SocketStream, number: int, size: int, random: Random) -> None:
        with suppress(trio.BrokenResourceError):
            await write(stream, -number, size, random)
            await stream.send_eof()

    async def caller(self, first: int) -> None:
        number = first
        while not self.over:
            await self._call(number, *self.plan(number))
            number += STREAMS

    async def _call(self, number: int, there: int, back: int, kind: str) -> None:
        while (link := self.a.pick()) is None:
            waiting = Waiting()
            assert self.a.wait(waiting)
            await waiting.up.wait()
        ours, stream = pair()
        lane = link.session.open(encode_open(Open(str(number))))
        observer = lane.observer = Record()
        lane.attach(ours, tcp=False)
        lane.start_calling()
        self.a._pump.settle()
        random = Random(-number)
        async with stream:
            got = -1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say, stream, number, there, random)
                with suppress(trio.BrokenResourceError):
                    got = await check(stream, -number, random, back // 2 if kind == "caller aborts" else None)
                if kind == "caller aborts":
                    nursery.cancel_scope.cancel()
            if kind == "whole":
                assert got == back, (number, got, back, observer.told)
                self.whole += 1
            else:
                self.aborted += 1

    async def _say(self, stream: trio.SocketStream, number: int, size: int, random: Random) -> None:
        with suppress(trio.BrokenResourceError):
            await write(stream, number, size, random)
            await stream.send_eof()

    async def kill(self) -> None:
        """One link, at either end, noticed by both or by one, with what is under way or without."""
        random = self.random
        side = random.choice((self.a, self.b))
        await until(lambda: any(not link.ended.is_set() for link in side.links))
        link = random.choice([link for link in side.links if not link.ended.is_set()])
        how = random.choice(("shutdown", "reset", "here"))
        if how == "shutdown":
            with suppress(OSError):  # the peer has reset it
                link._sock.shutdown(socket.SHUT_RDWR)
        elif how == "reset":
            link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.doom(CloseReason.LINK_LOST, "cut")
            side._pump.settle()
        else:
            kept = link._sock.dup()
            link.doom(CloseReason.LINK_LOST, "cut")
            side._pump.settle()
            await trio.sleep(random.random() * 0.05)
            kept.close()


@pytest.mark.parametrize("mtls", [False, True])
async def test_every_byte_arrives_once(mtls: bool) -> None:
    async with two_hosts(needed=(True, False), mtls=mtls, resume_timeout=60) as (a, b), trio.open_nursery() as serving:
        for home in (a, b):
            backoff = home._dialler._backoff
            backoff._ceiling = backoff._window = backoff._start = 0.01
        storm = Storm(a, b, SEED)
        b.sessions._calls = Service(serving, storm.serve)
        await until(lambda: a.up and b.up)
        with trio.fail_after(40 + KILLS):
            async with trio.open_nursery() as calling:
                for number in range(1, STREAMS + 1):
                    calling.start_soon(storm.caller, number)
                for _ in range(KILLS):
                    await trio.sleep(storm.random.choice((0.001, 0.02, 0.1, 0.2)))
                    await storm.kill()
                storm.over = True
            await until(lambda: a.streams == b.streams == 0)
        assert min(storm.whole, storm.aborted, a.sessions.resumed) > 0
        for home in (a, b):
            await until(lambda home=home: not any(home._pump.lanes) and home._pump.budget.used == 0)  # type: ignore[misc]
            assert not any(session.suspended for session in home.sessions)
        await until(lambda: a._pump.slabs.in_use <= 2 * len(list(a.sessions)))
