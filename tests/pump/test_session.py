"""Sessions that lose their links under streams between real sockets, and go on with other ones."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
import trio

from proxy.errors import CloseReason
from proxy.mux.frames import Open, encode_open
from proxy.mux.sizes import HIGH_WATER, SLAB_SIZE
from tests.pump.rig import KINDS, End, Kind, Record, Stream, rig, until

pytestmark = pytest.mark.failure(7)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_goes_on_over_the_next_link(kind: Kind) -> None:
    async with rig(survives=True) as joined:
        stream = await joined.stream(kind, kind)
        for number in range(5):
            await joined.cut()
            assert joined.near.session.suspended
            assert joined.far.session.suspended
            await stream.caller.send(b"there")
            await stream.service.send(b"and back")
            joined.relink()
            assert not joined.near.session.suspended
            assert await stream.service.read(5) == b"there"
            assert await stream.caller.read(8) == b"and back"
            assert joined.near.session.resumed == joined.far.session.resumed == number + 1
        stream.caller.finish()
        assert await stream.service.rest() == (b"", False)
        stream.service.close()
        assert await stream.caller.rest() == (b"", False)


async def test_ends_and_calls_that_come_while_there_is_no_link() -> None:
    async with rig(survives=True) as joined:
        one, other, third = [await joined.stream("tcp", "tcp") for _ in range(3)]
        await joined.cut()
        one.caller.finish()
        other.service.abort()
        third.caller.close()
        await other.inbound.over.wait()
        joined.relink()
        assert await one.service.rest() == (b"", False)
        assert (await other.caller.rest()).reset
        assert await third.service.rest() == (b"", False)
        assert await other.outbound.ended() is CloseReason.ABORTED
        one.service.close()
        third.service.close()
        await joined.stream()


@pytest.mark.failure(4, 5, 20)
async def test_bulk_both_ways_over_many_losses() -> None:
    """Each loss comes at some moment in the middle; every byte arrives once, in its place."""
    random = Random(3)
    async with rig(survives=True, replay=2 * SLAB_SIZE) as joined:
        streams = [await joined.stream(*kinds) for kinds in (("unix", "tcp"), ("tcp", "unix"), ("unix", "unix"))]
        payloads = [random.randbytes(3_000_000) for _ in range(2 * len(streams))]
        done = 0

        async def check(speaker: End, listener: End, payload: bytes) -> None:
            nonlocal done

            async def speak() -> None:
                await speaker.send(payload)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak)
                assert await listener.read(len(payload)) == payload
            done += 1

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(check, stream.caller, stream.service, payloads.pop())
                nursery.start_soon(check, stream.service, stream.caller, payloads.pop())
            losses = 0
            while done < 2 * len(streams):
                before = joined.near.session.received + joined.far.session.received
                await until(
                    lambda before=before: (  # type: ignore[misc]
                        done == 2 * len(streams)
                        or joined.near.session.received + joined.far.session.received > before + 300_000
                    ),
                    "some more",
                )
                await joined.cut()
                for _ in range(random.randrange(5)):
                    await trio.lowlevel.checkpoint()
                joined.relink()
                losses += 1
        assert losses > 10


@pytest.mark.failure(4, 19, 20)
async def test_local_sockets_are_not_read_beyond_the_replay_buffer() -> None:
    async with rig(survives=True, replay=2 * SLAB_SIZE) as joined:
        streams = [await joined.stream() for _ in range(8)]
        await joined.cut()
        out = joined.near.session.out

        async def stuck() -> bool:
            filled = sum(stream.caller.fill() for stream in streams)
            await trio.sleep(0.01)
            return not filled

        while not await stuck():
            pass
        assert out.unsent <= HIGH_WATER + SLAB_SIZE
        assert joined.a.pump.slabs.in_use * SLAB_SIZE <= 4 * SLAB_SIZE
        written = out.end
        joined.relink()
        await until(lambda: joined.far.session.received >= written, "all of it")


async def test_bytes_that_have_come_still_go_to_their_socket() -> None:
    async with rig(survives=True, credit=1 << 20) as joined:
        stream = await joined.stream("unix", "unix")
        service = stream.inbound.lane
        sent = 900_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.caller.send, bytes(sent))
            await until(lambda: service.bytes_received == sent and service.buffered, "more than the socket takes")
            await joined.cut()
            assert await stream.service.read(sent) == bytes(sent)
        assert joined.b.pump.budget.used == 0
        joined.relink()
        await until(lambda: stream.outbound.lane.credit > 0, "credit")


@pytest.mark.failure(19)
async def test_too_many_ends_for_the_memory() -> None:
    """Control frames that are to be sent again cannot wait, and their sum is bounded."""
    async with rig(survives=True, replay=2 * SLAB_SIZE) as joined:
        stream = await joined.stream("tcp", "tcp")
        await joined.cut()
        session = joined.near.session
        for _ in range(200_000):
            session.ping(1)
            if session.out.overrun:
                break
        joined.a.pump.settle()
        assert session.over
        assert (session.reason, session.lost_streams) == (CloseReason.LINK_LOST, 1)
        assert "do not fit" in session.detail
        assert await stream.outbound.ended() is CloseReason.LINK_LOST
        assert (await stream.caller.rest()).reset


async def test_what_it_ends_with() -> None:
    async with rig(survives=True) as joined:
        streams = [await joined.stream(kind, "unix") for kind in KINDS]
        await joined.cut()
        session = joined.near.session
        session.end(CloseReason.RESUME_TIMEOUT, "too late")
        session.end(CloseReason.STOPPED)
        joined.a.pump.settle()
        assert session.awake.is_set()
        assert (session.reason, session.detail, session.lost_streams) == (CloseReason.RESUME_TIMEOUT, "too late", 2)
        for stream in streams:
            assert await stream.outbound.ended() is CloseReason.RESUME_TIMEOUT
        assert await streams[0].caller.rest() == (b"", False)
        assert (await streams[1].caller.rest()).reset


@pytest.mark.failure("21c")
async def test_streams_of_a_session_that_the_peer_never_heard_of_are_handed_back() -> None:
    """Those that this side has opened and the peer has not answered; others end."""
    async with rig(survives=True) as joined:
        answered = await joined.stream("unix", "unix")
        joined.handover.hold = True
        caller, waiting = joined.call("tcp", early=b"early")
        await until(lambda: len(joined.handover.records) == 2, "the call")
        await joined.cut()
        session = joined.near.session
        session.unheard = True
        session.end(CloseReason.LINK_LOST, "never heard of")
        joined.a.pump.settle()
        assert (waiting.reason, waiting.refused, waiting.lane.early) == (CloseReason.LINK_LOST, True, b"early")
        assert await answered.outbound.ended() is CloseReason.LINK_LOST
        assert session.lost_streams == 1
        joined.handover.release()
        del caller


@pytest.mark.failure("21c")
@pytest.mark.parametrize("reason", [CloseReason.PEER_UNREACHABLE, CloseReason.STOPPED])
async def test_the_first_word_of_a_dialler_that_has_given_up(reason: CloseReason) -> None:
    async with rig(survives=True) as joined:
        far = joined.far.session
        lane = far.open(encode_open(Open("test")))
        record = lane.observer = Record("outbound")
        record.lane = lane
        lane.early = b""
        far.on_goaway(reason)
        joined.b.pump.settle()
        await record.over.wait()
        assert (far.over, record.refused) == (True, reason is CloseReason.PEER_UNREACHABLE)


@pytest.mark.parametrize("reason", [CloseReason.PROTOCOL_ERROR, CloseReason.STOPPED])
async def test_an_end_that_somebody_chose_is_one(reason: CloseReason) -> None:
    async with rig(survives=True) as joined:
        stream = await joined.stream()
        joined.near.doom(reason, "chosen")
        joined.a.pump.settle()
        await joined.far.ended.wait()
        assert joined.near.session.over
        assert joined.far.session.over
        assert await stream.inbound.ended() is reason


async def test_time_without_progress_counts_over_links() -> None:
    """Links that come up and are lost before anything more was acknowledged do not begin it afresh."""
    async with rig(survives=True) as joined:
        stream: Stream = await joined.stream()
        await stream.caller.send(b"unacknowledged")
        await stream.service.read(14)
        await joined.cut()
        session = joined.near.session
        since = session.stalled_since
        assert since == session.lost_at
        session.carry_on(joined.near)
        session.suspend()
        assert session.stalled_since == since < session.lost_at
        assert session.fruitless == 1
        session.resume(joined.far.session.received)
        session.carry_on(joined.near)
        session.suspend()
        assert session.stalled_since == session.lost_at
        assert session.fruitless == 0
        joined.relink()
        assert joined.near.session is session


async def test_a_session_that_retires_ends_on_its_next_link() -> None:
    """The word that it leaves, and the peer's answer, get through however often the link is lost."""
    async with rig(survives=True) as joined:
        joined.near.retire()
        await joined.cut()
        assert not joined.near.session.over
        joined.relink()
        joined.near.ping()
        await joined.near.ended.wait()
        await joined.far.ended.wait()
        assert joined.near.reason is joined.far.reason is CloseReason.IDLE


async def test_a_stream_opened_on_a_link_that_is_lost_at_once() -> None:
    async with rig(survives=True) as joined:
        joined.near_sock.shutdown(2)
        caller, record = joined.call(early=b"early")
        await until(partial(joined.near.ended.is_set), "the loss")
        await until(partial(joined.far.ended.is_set), "the loss")
        joined.relink()
        service, inbound = await joined.handover.next.receive()
        joined.ends.append(service)
        assert await service.read(5) == b"early"
        await record.opened.wait()
        assert isinstance(inbound, Record)
        assert joined.near.session.open(encode_open(Open("x"))).session.link is joined.near
        del caller


@pytest.mark.failure(19, 20)
@pytest.mark.parametrize("survives", [False, True])
async def test_what_has_ended_stands_in_nobodys_way(survives: bool) -> None:
    """A window that goes on with other sessions keeps nothing of one that has ended, nor of its calls."""
    async with rig(survives=survives) as joined:
        session, openings = joined.near.session, joined.a.pump.openings
        batch = openings.of("web").add(session.under_way)
        session.stop(CloseReason.STOPPED)
        joined.a.pump.settle()
        assert session.over
        assert (openings.of("web").count, session.under_way.count, batch.count) == (0, 0, 0)
        # That nothing refers to it is checked at the end (`Host.check_empty`).
