from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.errors import CloseReason
from proxy.links.keepalive import keep_alive
from proxy.mux.frames import Open
from proxy.mux.session import SessionSettings
from proxy.pump.budget import MemoryBudget
from proxy.pump.lane import Lane
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.session import CallHandler, LaneSession
from proxy.pump.turn import LaneReader
from tests.links.wire import tcp_pair
from tests.pump.rig import Counting

pytestmark = pytest.mark.failure(7)

PING = 0x08
PONG = 0x09


class Fake:
    """What keep_alive sees of a link."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.heard = self.answered = self.settled = 0
        self.pings: list[float] = []
        self.doomed: list[tuple[float, CloseReason, str]] = []
        self.pump = self

    def ping(self) -> None:
        self.pings.append(trio.current_time())

    def doom(self, reason: CloseReason, detail: str) -> None:
        self.doomed.append((trio.current_time(), reason, detail))

    def settle(self) -> None:
        self.settled += 1
        self.ended.set()


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def alive(link: Fake, start: float, interval: float, silence: float) -> list[float]:
    """Keep alive until the link has ended; the times of the pings, seconds from the start."""
    await keep_alive(link, interval, silence)  # type: ignore[arg-type]
    return [round(at - start, 6) for at in link.pings]


async def test_a_silent_peer_is_found_after_one_ping(clock: MockClock) -> None:
    link, start = Fake(), trio.current_time()
    assert await alive(link, start, 5, 3) == [0]
    assert link.doomed == [(start + 3, CloseReason.PEER_TIMEOUT, "nothing heard for 3 s after a ping")]
    assert link.settled == 1


@pytest.mark.parametrize(("interval", "silence"), [(5.0, 3.0), (5.0, 5.0), (1.0, 4.0)])
async def test_a_peer_that_falls_silent_is_found_within_the_documented_time(
    clock: MockClock, interval: float, silence: float
) -> None:
    """At worst it dies right after it has been heard."""
    link, start = Fake(), trio.current_time()

    async def answers() -> None:
        for _ in range(10):
            before = len(link.pings)
            link.heard += 1
            link.answered += 1
            while len(link.pings) == before:
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers)
        pings = await alive(link, start, interval, silence)
    period = max(interval, silence)
    assert pings == [number * period for number in range(len(pings))]
    assert len(pings) >= 10
    assert link.doomed[0][0] - start - pings[-1] == pytest.approx(silence)


async def test_any_byte_is_a_sign_of_life(clock: MockClock) -> None:
    link = Fake()

    async def busy() -> None:
        for second in range(100):
            await trio.sleep(1)
            link.heard += 1
            link.answered += second % 10 == 0
        link.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy)
        await alive(link, 0, 5, 3)
    assert link.doomed == []


@pytest.mark.failure(14)
@pytest.mark.parametrize(("interval", "silence"), [(5.0, 3.0), (5.0, 5.0), (1.0, 4.0)])
async def test_a_peer_that_is_heard_but_acknowledges_nothing(
    clock: MockClock, interval: float, silence: float
) -> None:
    """Its own pings get through; nothing large of this side does, and so no ping behind it."""
    link, start = Fake(), trio.current_time()

    async def pings() -> None:
        while not link.ended.is_set():
            await trio.sleep(0.1)
            link.heard += 1
            if len(link.pings) <= 2:
                link.answered += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pings)
        times = await alive(link, start, interval, silence)
    period = max(interval, silence)
    assert times == [0, period, 2 * period, 3 * period]
    [(at, reason, text)] = link.doomed
    assert (at - start, reason) == (pytest.approx(times[-1] + silence), CloseReason.PEER_TIMEOUT)
    assert "hostlane check" in text


async def test_it_returns_when_the_link_has_ended(clock: MockClock) -> None:
    link = Fake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alive, link, 0, 5, 3)
        await wait_all_tasks_blocked()
        link.ended.set()
    assert len(link.pings) == 1
    await alive(link, 0, 5, 3)
    assert len(link.pings) == 1


# Over real sockets, by the real clock


class Nobody(CallHandler):
    def call(self, lane: Lane, call: Open) -> None:
        raise AssertionError("nobody calls")


@asynccontextmanager
async def pumping() -> AsyncIterator[tuple[Link, socket.socket]]:
    """A link, and the peer's end of its socket."""
    pump = Pump(MemoryBudget(1 << 20), LaneReader())
    ours, theirs = tcp_pair()
    session = LaneSession(
        pump,
        key="1",
        name="link",
        peer="host-b",
        dialled=True,
        local=SessionSettings(),
        remote=SessionSettings(),
        replay=1 << 20,
        calls=Nobody(),
        usage=Counting(),
    )
    link = Link(pump, ours, session)
    with theirs:
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            link.start(b"")
            yield link, theirs
            link.doom(CloseReason.STOPPED)
            pump.settle()
            nursery.cancel_scope.cancel()
    pump.shut_down()


async def test_a_peer_that_reads_nothing_and_says_nothing() -> None:
    async with pumping() as (link, theirs):
        await keep_alive(link, 0.01, 0.01)
        assert (link.reason, link.detail) == (CloseReason.PEER_TIMEOUT, "nothing heard for 0.01 s after a ping")
        await trio.lowlevel.wait_readable(theirs)
        assert theirs.recv(100)[0] == PING


SILENCE = 0.2
"""Seconds: far more than a busy machine keeps this process from answering itself."""
ROUNDS = 6
"""Times that the deadline and the answer are due at once; trio takes either first, as often as the other."""


async def test_an_answer_that_is_read_late_counts() -> None:
    """The peer answers at once; then nobody on this host has a core for longer than the silence allowed."""
    answers = 0
    async with pumping() as (link, theirs):

        async def answer() -> None:
            nonlocal answers
            while answers < ROUNDS:
                await trio.lowlevel.wait_readable(theirs)
                frame = theirs.recv(16, socket.MSG_WAITALL)
                if frame[0] == PING:  # and not an ACK, which is as long
                    theirs.sendall(bytes([PONG]) + frame[1:])
                    answers += 1
                    time.sleep(1.25 * SILENCE)
            link.doom(CloseReason.STOPPED)
            link.pump.settle()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await keep_alive(link, SILENCE, SILENCE)
            nursery.cancel_scope.cancel()
        assert (link.reason, answers) == (CloseReason.STOPPED, ROUNDS), link.detail


async def test_a_peer_that_answers_stays_and_is_timed() -> None:
    async with pumping() as (link, theirs):
        peer = trio.socket.from_stdlib_socket(theirs)

        async def answer() -> None:
            frame = bytearray()
            while len(frame) < 16:
                frame += await peer.recv(16 - len(frame))
            assert frame[0] == PING
            await peer.send(bytes([PONG]) + frame[1:])
            while not link.heard:
                await trio.lowlevel.checkpoint()
            link.doom(CloseReason.STOPPED)
            link.pump.settle()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await keep_alive(link, 30, 30)
        assert link.reason is CloseReason.STOPPED
        assert link.rtt is not None
        assert link.rtt >= 0
