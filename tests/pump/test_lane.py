"""Streams through two pumps, between real sockets: bytes, back-pressure, bugs. Ends are in test_ends.py."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from random import Random
from time import monotonic
from typing import Any

import pytest
import trio

from control.base.histogram import Histogram
from proxy.errors import CloseReason
from proxy.mux.extracredit import FACTOR
from proxy.mux.frames import MAX_DATA
from proxy.mux.sizes import EARLY_LIMIT, HIGH_WATER
from proxy.pump.lane import BULK_CROWD, BULK_FLIGHT, BULK_MARK, BULK_RUN, Lane
from proxy.pump.session import EXTRA_CREDIT_SHARE
from proxy.pump.streamtiming import StreamTiming
from tests.pump.rig import KINDS, End, Kind, Rig, Stream, rig, until

CREDIT = 64 * 1024
SIZES = [1, 2, 63, 64, 1500, 16383, 16384, 16385, 65535, 65536, 65537, 262144, 1 << 20]


@pytest.mark.parametrize(("kind", "to"), list(product(KINDS, KINDS)))
async def test_a_conversation(kind: Kind, to: Kind) -> None:
    async with rig() as joined:
        stream = await joined.stream(kind, to)
        for size in (1, 64, 1000, 20_000):
            request, answer = bytes([size % 251]) * size, bytes([size % 241]) * size
            await stream.caller.send(request)
            assert await stream.service.read(size) == request
            await stream.service.send(answer)
            assert await stream.caller.read(size) == answer


@pytest.mark.failure(16)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_speaks_first_is_heard_at_once(kind: Kind) -> None:
    """The caller has said nothing at all."""
    async with rig() as joined:
        stream = await joined.stream(kind, kind)
        await stream.service.send(b"220 welcome")
        assert await stream.caller.read(11) == b"220 welcome"


async def test_early_bytes_travel_with_the_call() -> None:
    async with rig() as joined:
        stream = await joined.stream(early=b"PING")
        assert stream.outbound.lane.bytes_sent == 4
        assert await stream.service.read(4) == b"PING"
        await stream.outbound.opened.wait()
        assert stream.outbound.lane.early is None


async def test_early_bytes_are_bounded_until_the_far_side_answers() -> None:
    async with rig() as joined:
        joined.handover.hold = True
        caller, record = joined.call()
        sent = caller.fill()
        assert sent > EARLY_LIMIT
        await until(lambda: record.lane.bytes_sent == EARLY_LIMIT, "early bytes sent")
        assert record.lane.early is not None
        assert len(record.lane.early) == EARLY_LIMIT
        await until(lambda: joined.far.session.streams, "the stream at the far side")
        [lane] = joined.far.session.streams.values()
        await until(lambda: lane.buffered == EARLY_LIMIT, "early bytes kept")
        assert joined.b.pump.budget.used == EARLY_LIMIT
        await until(lambda: joined.near.session.known_at, "an answer to a ping, which OPENED would have come with")
        joined.handover.release()
        service, _ = await joined.handover.next.receive()
        joined.ends.append(service)
        assert await service.read(sent) == bytes(sent)


async def test_what_a_refused_caller_said_is_kept_for_another_try() -> None:
    async with rig() as joined:
        joined.handover.refuse = CloseReason.CONNECT_FAILED
        _caller, record = joined.call(early=b"keep this")
        assert await record.ended() is CloseReason.CONNECT_FAILED
        assert record.refused
        assert record.lane.early == b"keep this"


# -------------------------------------------------------------------------------------------------------------- bytes


async def send_pieces(end: End, payload: bytes, random: Random) -> None:
    view = memoryview(payload)
    while view:
        size = random.choice((1, 17, 1000, 30_000, 200_000))
        await end.send(view[:size])
        view = view[size:]
        if random.random() < 0.3:
            await trio.lowlevel.checkpoint()
    end.finish()


async def receive_slowly(end: End, expected: bytes, random: Random) -> None:
    received = bytearray()
    while piece := await end.sock.recv(random.choice((1, 100, 5000, 65536, 1 << 20))):
        received += piece
        if random.random() < 0.2:
            await trio.sleep(random.choice((0, 0.001, 0.003)))
    assert received == expected


@pytest.mark.failure(19, 20)
@pytest.mark.parametrize("seed", range(3))
async def test_every_byte_arrives_in_order(seed: int) -> None:
    """24 streams, sizes from 1 B to 1 MiB both ways at once, writers and readers at their own pace."""
    random = Random(seed)
    async with rig(credit=CREDIT) as joined, trio.open_nursery() as nursery:
        for number in range(24):
            stream = await joined.stream(random.choice(KINDS), random.choice(KINDS))
            for one, other in ((stream.caller, stream.service), (stream.service, stream.caller)):
                payload = random.randbytes(random.choice(SIZES[number % 4 :: 2]))
                nursery.start_soon(send_pieces, one, payload, Random(random.random()))
                nursery.start_soon(receive_slowly, other, payload, Random(random.random()))
    assert {record.reason for record in joined.records} == {CloseReason.FINISHED}


async def test_streams_are_counted_in_bytes() -> None:
    async with rig(credit=CREDIT) as joined:
        stream = await joined.stream()
        payload = bytes(300_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.caller.send, payload)
            assert await stream.service.read(len(payload)) == payload
        assert stream.outbound.lane.bytes_sent == stream.inbound.lane.bytes_received == len(payload)
        assert stream.outbound.lane.bytes_received == stream.inbound.lane.bytes_sent == 0


# ---------------------------------------------------------------------------------------------------------------- bulk


async def test_bulk_reads_more_in_a_turn_while_it_is_alone_and_is_forgotten_when_it_is_over() -> None:
    """All bytes arrive in their order, whatever pieces they were read in."""
    payload = Random(6).randbytes(8 << 20)
    runs: list[int] = []
    async with rig() as joined:
        stream = await joined.stream()
        lane = stream.outbound.lane
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.caller.send, payload)
            for start in range(0, len(payload), 1 << 18):
                assert await stream.service.read(1 << 18) == payload[start : start + (1 << 18)]
                runs.append(lane._run)
        assert 1 < max(runs) <= BULK_RUN
        await stream.caller.send(b"PING")
        assert await stream.service.read(4) == b"PING"
        assert lane._run == 0
        await until(lambda: joined.a.pump.lanes[lane.fd] is lane, "it is in plain flow again")


async def test_bulk_in_a_crowd_reads_once_in_a_turn() -> None:
    async with rig() as joined:
        stream = await joined.stream()
        await stream.outbound.opened.wait()
        lane = stream.outbound.lane
        joined.a.pump.crowd = BULK_CROWD + 1
        lane._run = BULK_RUN
        joined.near.congested = True  # what is read stays where it can be counted
        stream.caller.fill()
        lane._read_bulk(gone=False)
        assert (lane._run, lane.bytes_sent) == (1, MAX_DATA)
        joined.a.pump.crowd = BULK_CROWD
        lane._read_bulk(gone=False)
        assert lane._run == 2
        assert lane.out.unsent > BULK_MARK
        assert lane.bytes_sent == MAX_DATA, "no more is read than small messages may wait behind"
        joined.near.congested = False
        joined.a.pump.settle()
        await until(lambda: lane.bytes_sent > 2 * MAX_DATA, "the link takes more again")


async def test_bulk_in_a_crowd_does_not_use_what_it_was_lent() -> None:
    async with rig() as joined:
        stream = await joined.stream()
        await stream.outbound.opened.wait()
        lane = stream.outbound.lane
        joined.a.pump.crowd = BULK_CROWD + 1
        lane._run = 1
        lane.out.base += BULK_FLIGHT  # as if so much more were on its way
        lane.out.sent += BULK_FLIGHT
        stream.caller.fill()
        lane._read_bulk(gone=False)
        assert lane.bytes_sent == 0
        joined.a.pump.crowd = BULK_CROWD
        lane._read_bulk(gone=False)
        assert lane.bytes_sent > 0
        lane.out.base -= BULK_FLIGHT
        lane.out.sent -= BULK_FLIGHT
        joined.a.pump.settle()


async def test_a_fast_stream_is_lent_credit() -> None:
    """Up to four times as much, and the sender uses no more than it was granted (a protocol error otherwise)."""
    async with rig(credit=CREDIT) as joined:
        stream = await joined.stream()
        extended: set[int] = set()
        receiver = stream.inbound.lane
        extra_credit = receiver.session.extra_credit
        payload = bytes(32 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.caller.send, payload)
            for _ in range(0, len(payload), 1 << 16):
                await stream.service.read(1 << 16)
                extended.add(len(extra_credit.extended))
                assert receiver.buffered + receiver.allow <= extra_credit.larger
        assert extended <= {0, 1}
        stream.caller.close()
        stream.service.close()
        await until(lambda: not extra_credit.extended, "nothing is lent to a stream that is gone")


async def test_nothing_is_lent_where_a_peer_may_hold_little() -> None:
    async with rig(credit=CREDIT, memory=EXTRA_CREDIT_SHARE * FACTOR * CREDIT) as joined:
        assert joined.near.session.extra_credit.most == 1
    async with rig(credit=CREDIT, memory=EXTRA_CREDIT_SHARE * FACTOR * CREDIT - 1) as joined:
        assert joined.near.session.extra_credit.most == 0


# ------------------------------------------------------------------------------------------------------ back-pressure


async def fill(joined: Rig, stream: Stream, closer: str) -> int:
    """Write until nothing more is taken anywhere on the way; returns the bytes written."""
    writer, _ = stream.ends(closer)
    outbound, inbound = stream.outbound.lane, stream.inbound.lane
    sender, receiver = (outbound, inbound) if closer == "caller" else (inbound, outbound)
    written = 0

    def full() -> bool:
        nonlocal written
        more = writer.fill()
        written += more
        return not more and sender.credit == 0 and receiver.buffered > CREDIT // 2

    await until(full, "no credit left")
    return written


@pytest.mark.failure(4, 19, 20)
@pytest.mark.parametrize("closer", ["caller", "service"])
async def test_a_slow_reader_stalls_its_own_stream_only(closer: str) -> None:
    async with rig(credit=CREDIT) as joined:
        stalled, other = await joined.stream(), await joined.stream()
        written = await fill(joined, stalled, closer)
        receiver = (stalled.inbound if closer == "caller" else stalled.outbound).lane
        budget = receiver.session.pump.budget
        assert 0 < receiver.buffered <= CREDIT, "what the proxy holds is bounded by the credit"
        assert budget.used == receiver.buffered
        for _ in range(50):
            await other.caller.send(b"x" * 1000)
            assert await other.service.read(1000) == b"x" * 1000
            await other.service.send(b"y" * 1000)
            assert await other.caller.read(1000) == b"y" * 1000
        _, reader = stalled.ends(closer)
        assert await reader.read(written) == bytes(written)
        await until(lambda: budget.used == 0, "the budget given back")


@pytest.mark.failure(5)
async def test_both_sides_write_without_reading_and_the_link_goes_on() -> None:
    """More than all buffers hold, in both directions of many streams at once."""
    async with rig(credit=CREDIT) as joined:
        other = await joined.stream()
        streams = [await joined.stream() for _ in range(8)]
        written = []
        for stream in streams:
            written.append([await fill(joined, stream, closer) for closer in ("caller", "service")])
        await other.caller.send(b"still here?")
        assert await other.service.read(11) == b"still here?"
        for stream, (up, down) in zip(streams, written, strict=True):
            assert await stream.service.read(up) == bytes(up)
            assert await stream.caller.read(down) == bytes(down)


@pytest.mark.failure(19, 20)
async def test_a_link_that_takes_nothing_stops_the_callers() -> None:
    """The peer reads nothing: what this host holds for the link stays within its bound, and all of it arrives later."""
    async with rig() as joined:
        streams = [await joined.stream() for _ in range(40)]
        joined.b.pump.release(joined.far_sock)
        written = [0] * len(streams)

        def full() -> bool:
            more = [stream.caller.fill() for stream in streams]
            written[:] = map(sum, zip(written, more, strict=True))
            return not any(more) and (joined.near.congested or joined.near.session.out.unacked > BULK_FLIGHT)

        await until(full, "everything full")
        assert joined.near.session.out.unsent <= HIGH_WATER + 2 * 65536
        joined.b.pump.watch(joined.far_sock.fileno(), joined.far, 1)
        for stream, total in zip(streams, written, strict=True):
            assert await stream.service.read(total) == bytes(total)


@pytest.mark.failure(19)
async def test_over_the_budget_that_stream_is_reset() -> None:
    memory = 3 * CREDIT
    async with rig(credit=CREDIT, memory=memory) as joined:
        streams = [await joined.stream("tcp", "unix") for _ in range(6)]
        for stream in streams:
            stream.service.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        resets: list[End] = []
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(_write_until_reset, stream.caller, resets)
            await until(lambda: resets, "one reset")
            nursery.cancel_scope.cancel()
        assert joined.b.pump.budget.used <= memory
        over = [stream for stream in streams if stream.outbound.over.is_set()]
        assert 0 < len(over) < len(streams)
        assert [stream.caller for stream in over if stream.caller in resets]
        for stream in over:
            await stream.over()
            assert stream.outbound.reason is stream.inbound.reason is CloseReason.OVER_BUDGET
        others = await joined.stream()
        await others.caller.send(b"the link goes on")
        assert await others.service.read(16) == b"the link goes on"


async def _write_until_reset(end: End, resets: list[End]) -> None:
    try:
        while True:
            await end.send(bytes(65536))
    except ConnectionResetError:
        resets.append(end)
    except BrokenPipeError:
        pass


# --------------------------------------------------------------------------------------------------------------- bugs


async def check_only_that_one_ends(joined: Rig, victim: Stream, other: Stream) -> None:
    await victim.over()
    await other.caller.send(b"still here?")
    assert await other.service.read(11) == b"still here?"
    assert not joined.near.ended.is_set()


BREAKABLE = ("ready", "_read_bulk", "on_eof", "update", "on_data", "on_full", "on_fin", "resume")


class BreakableLane(Lane):
    """One of its methods, the one called `broken`, raises what nobody expects."""

    broken = ""


def breakable(name: str) -> Callable[..., object]:
    def method(self: BreakableLane, *args: object, **named: object) -> object:
        if self.broken == name:
            raise RuntimeError("a bug")
        return getattr(Lane, name)(self, *args, **named)

    return method


for name in BREAKABLE:
    setattr(BreakableLane, name, breakable(name))


@asynccontextmanager
async def breakable_rig(**settings: Any) -> AsyncIterator[Rig]:
    async with rig(**settings) as joined:
        for link in (joined.near, joined.far):
            link.session._stream_type = BreakableLane
        yield joined


@pytest.mark.failure(18)
@pytest.mark.parametrize("name", ["ready", "_read_bulk", "on_eof", "update"])
async def test_a_bug_while_reading_one_caller_costs_that_stream_only(name: str) -> None:
    async with breakable_rig() as joined:
        victim, other = await joined.stream(), await joined.stream()
        victim.outbound.lane.broken = name  # type: ignore[attr-defined]
        victim.caller.fill()
        victim.caller.finish()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim.service.rest)
            await check_only_that_one_ends(joined, victim, other)


@pytest.mark.failure(18)
@pytest.mark.parametrize("name", ["on_data", "on_full", "on_fin"])
async def test_a_bug_while_handling_a_peers_frame_costs_that_stream_only(name: str) -> None:
    async with breakable_rig(credit=CREDIT) as joined:
        victim, other = await joined.stream(), await joined.stream()
        victim.inbound.lane.broken = name  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            if name == "on_fin":
                victim.caller.finish()
            else:
                nursery.start_soon(_write_until_reset, victim.caller, [])
            await check_only_that_one_ends(joined, victim, other)


@pytest.mark.failure(18)
async def test_a_bug_when_the_link_has_room_again_costs_that_stream_only() -> None:
    async with breakable_rig(credit=CREDIT) as joined:
        victim, other = await joined.stream(), await joined.stream()
        await fill(joined, victim, "caller")
        victim.outbound.lane.broken = "resume"  # type: ignore[attr-defined]
        while not victim.outbound.over.is_set():
            await victim.service.sock.recv(65536)
        await check_only_that_one_ends(joined, victim, other)


@pytest.mark.failure(18)
@pytest.mark.parametrize("owned", [True, False])
async def test_a_bug_in_delivery_refuses_that_stream_only(owned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as joined:
        other = await joined.stream()
        joined.handover.bug_owned = owned
        joined.handover.bug = True
        _caller, record = joined.call()
        assert await record.ended() is CloseReason.CONNECT_FAILED
        joined.handover.bug = False
        await other.caller.send(b"still here?")
        assert await other.service.read(11) == b"still here?"


async def test_the_first_byte_of_the_answer_is_timed_and_then_the_flow_is_plain() -> None:
    async with rig() as joined:
        joined.handover.hold = True
        caller, record = joined.call(early=b"ask")
        opened, first = Histogram([60]), Histogram([60])
        lane = record.lane
        lane.timing = StreamTiming(2, lane.since, opened, first)
        await until(lambda: joined.handover.records, "the call is there")
        joined.handover.release()
        service, _ = await joined.handover.next.receive()
        joined.ends.append(service)
        await record.opened.wait()
        assert (opened.count, first.count) == (2, 0)
        await caller.send(b" more")  # what goes the other way is no answer
        assert await service.read(8) == b"ask more"
        assert first.count == 0
        assert not lane.flowing
        await service.send(b"x")
        assert await caller.read(1) == b"x"
        assert (first.count, lane.timing) == (2, None)
        assert lane.flowing
        await service.send(b"yz")
        assert await caller.read(2) == b"yz"
        assert first.count == 2


async def test_a_stream_that_is_held_back_says_why() -> None:
    async with rig(credit=CREDIT) as joined:
        stream = await joined.stream()
        lane, far = stream.outbound.lane, stream.inbound.lane
        assert lane.stalls is far.stalls is None
        sent = 0

        def both_wait() -> bool:
            nonlocal sent
            sent += stream.caller.fill()
            return not lane.credit and far.buffered > 0

        await until(both_wait, "the service reads nothing, so both ends wait")
        assert lane.stalls is not None
        assert far.stalls is not None
        later = monotonic() + 100
        credit, _, reader = lane.stalls.take(later)
        assert (credit > 99, reader) == (True, 0)
        assert far.stalls.take(later).reader > 99
        await stream.service.read(sent)
        await until(lambda: lane.credit and not far.buffered, "nobody waits")
        for each in (lane, far):
            assert each.stalls is not None
            each.stalls.take(later)
            assert each.stalls.take(later + 100) == (0, 0, 0)
