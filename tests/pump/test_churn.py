"""Streams by the thousands, opened and closed in every order, and nothing left of them."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from random import Random

import pytest
import trio

from proxy.mux.stream import StreamState
from tests.pump.rig import KINDS, End, Rig, Stream, rig, until
from tests.tools.sockets import PATIENCE

STREAMS = 10_000
BATCH = 250


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Four for each stream that is open; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def close_somehow(stream: Stream, random: Random) -> None:
    """One of all the ways to end a stream, with bytes under way or not; half of them are aborts."""
    ends = [stream.caller, stream.service]
    random.shuffle(ends)
    one, other = ends
    for end in ends:
        if random.random() < 0.3:
            end.raw.send(b"x" * random.randrange(1, 2000))
    if random.random() < 0.25:
        one.finish()
        if random.random() < 0.5:
            other.finish()
    if random.random() < 0.5:
        random.choice(ends).abort()
    for end in ends:
        if random.random() < 0.3:
            await trio.lowlevel.checkpoint()
        end.close()


async def batch(joined: Rig, random: Random, count: int) -> list[Stream]:
    """Many at once: their callers first, then the services, in the same order."""
    joined.handover.kind = random.choice(KINDS)
    kind = random.choice(KINDS)
    called = [joined.call(kind, early=b"early" if random.random() < 0.5 else b"") for _ in range(count)]
    streams = []
    for caller, record in called:
        service, inbound = await joined.handover.next.receive()
        streams.append(Stream(caller, service, record, inbound))
    return streams


def check_nothing_left(joined: Rig) -> None:
    for host, link in ((joined.a, joined.near), (joined.b, joined.far)):
        assert not link.session.streams
        assert not any(host.pump.lanes)
        assert not link._waiting
        assert host.pump.watchers() == [link]
        assert host.pump.budget.used == 0
        assert host.pump.slabs.in_use <= 2


def acknowledged(joined: Rig) -> bool:
    """Whether each side knows that the other one has everything. The answer to a ping tells what had arrived before the
    frames that came with it, so one ping may not do.
    """
    for link in (joined.near, joined.far):
        link.ping()
    return not joined.near.session.lingering and not joined.far.session.lingering


def forget(joined: Rig) -> None:
    """The rig's own books, which would otherwise hold what is counted."""
    for held in (joined.records, joined.ends, joined.sockets, joined.handover.records, joined.handover.sockets):
        held.clear()


@pytest.mark.failure(1)
async def test_ten_thousand_streams_leave_nothing() -> None:
    """Neither descriptors nor tasks (the rig counts them at the end, and so does this test on the way), lanes, bytes of
    the budget, or memory of ids.
    """
    random = Random(20)
    async with rig(patience=5 * PATIENCE) as joined:
        tasks = trio.lowlevel.current_statistics().tasks_living
        lanes = 0
        kept: list[Stream] = []
        for _ in range(STREAMS // BATCH):
            # Some stay open over several batches, so that ends come in mixed order.
            streams = kept + await batch(joined, random, BATCH)
            random.shuffle(streams)
            kept, streams = streams[:50], streams[50:]
            for stream in streams:
                await close_somehow(stream, random)
            for stream in streams:
                await stream.over()
            lanes += len(streams)
        for stream in kept:
            await close_somehow(stream, random)
        for stream in kept:
            await stream.over()
        assert lanes + len(kept) == STREAMS
        assert {record.lane.state for record in joined.records} == {StreamState.CLOSED}
        check_nothing_left(joined)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert len(joined.near.session.lingering) + len(joined.far.session.lingering) < STREAMS
        await until(lambda: acknowledged(joined), "closed ids forgotten")
        forget(joined)


@pytest.mark.failure(1)
async def test_half_closed_streams_leave_nothing_when_the_other_half_ends() -> None:
    async with rig() as joined:
        streams = await batch(joined, Random(1), 500)
        for stream in streams[::2]:
            stream.caller.finish()
        for stream in streams[1::2]:
            stream.service.finish()
        for stream in streams[::2]:
            assert (await stream.service.rest()).reset is False
        for number, stream in enumerate(streams):
            assert stream.outbound.lane.state != StreamState.CLOSED
            if number % 3:
                stream.service.close()
                stream.caller.close()
            else:
                stream.caller.close()
                stream.service.close()
        for stream in streams:
            await stream.over()
        check_nothing_left(joined)


@pytest.mark.failure(1)
async def test_streams_that_the_link_ends_leave_nothing() -> None:
    """The link is lost with streams in every state, also such as still have bytes for a slow reader."""
    async with rig(credit=64 * 1024) as joined:
        streams = await batch(joined, Random(1), 100)
        writers: list[End] = []
        for number, stream in enumerate(streams):
            if number % 4 == 0:
                stream.caller.finish()
            elif number % 4 == 1:
                stream.caller.fill()
                writers.append(stream.caller)
        await until(lambda: joined.b.pump.budget.used or not any(end.fill() for end in writers), "full")
        joined.near_sock.shutdown(2)
        for stream in streams:
            await stream.over()
        await joined.near.ended.wait()
        await joined.far.ended.wait()
        gc.collect()
