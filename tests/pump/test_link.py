"""A link, with a test for a peer: frames in pieces, frames that break the specification, links that are lost."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from proxy.errors import CloseReason
from proxy.mux import frames
from proxy.mux.frames import (
    HEADER,
    HEADER_SIZE,
    KEY_SHIFT,
    LENGTH_MASK,
    FrameKind,
    Open,
    encode,
    encode_open,
    encode_u64,
)
from proxy.mux.session import SessionSettings
from proxy.mux.sizes import SLAB_SIZE
from proxy.mux.stream import StreamState
from proxy.pump.link import Link
from proxy.pump.session import LaneSession
from tests.pump.rig import Counting, End, Handover, Host, Record, proxied, rig, running, sockets, until
from tests.tools.sockets import fds_since, open_fds

OPEN = encode_open(Open("test"))
CREDIT = 256 * 1024


class Far:
    """A host with one link, whose peer is the test.

    Attributes:
        peer: the other end of the link's socket; calls: what the peer opens ends here.
    """

    def __init__(self, host: Host, replay: int) -> None:
        self.host = host
        self.calls = Handover()
        self.sock, peer = sockets("tcp")
        self.peer = End(peer)
        self.ends: list[End] = []
        self.records: list[Record] = []
        settings = SessionSettings(stream_credit=CREDIT)
        self.link: Link = host.link(
            self.sock, dialled=False, calls=self.calls, local=settings, remote=settings, replay=replay
        )

    async def read_frame(self) -> tuple[FrameKind, int, bytes]:
        """The next frame that the link sends."""
        (word,) = HEADER.unpack(await self.peer.read(HEADER_SIZE))
        stream_id = word >> KEY_SHIFT & frames.ID_MASK
        return FrameKind(word >> 56), stream_id, await self.peer.read(word & LENGTH_MASK)

    async def service(self) -> End:
        """What the next stream that the peer opened was connected to."""
        end, record = await self.calls.next.receive()
        self.ends.append(end)
        self.records.append(record)
        return end

    def call(self) -> tuple[End, Record]:
        """A caller on the host."""
        ours, caller = proxied("tcp")
        record = Record("outbound")
        lane = record.lane = self.link.session.open(encode_open(Open("test")))
        lane.observer = record
        lane.attach(ours, tcp=True)
        lane.start_calling()
        self.host.pump.settle()
        self.ends.append(caller)
        return caller, record


@asynccontextmanager
async def far(*, replay: int = 4 << 20) -> AsyncIterator[Far]:
    """Checks at the end that nothing is left of the link and its streams."""
    before = open_fds()
    host = Host()
    async with running(host):
        rig = Far(host, replay)
        try:
            yield rig
            rig.link.doom(CloseReason.STOPPED)
            host.pump.settle()
            host.check_empty()
        finally:
            for sock in (rig.sock, *rig.calls.sockets):
                sock.close()
            for end in (rig.peer, *rig.ends):
                end.close()
    assert not fds_since(before)


async def test_frames_may_arrive_byte_by_byte() -> None:
    async with far() as rig:
        wire = (
            encode(FrameKind.OPEN, 1, OPEN)
            + encode(FrameKind.DATA, 1, b"hello")
            + encode(FrameKind.DATA_FIN, 1, b" world")
        )
        for byte in wire:
            await rig.peer.send(bytes([byte]))
            await until(lambda: rig.link.heard, "the byte")
            rig.link.heard = 0
        service = await rig.service()
        assert await service.rest() == (b"hello world", False)
        assert rig.link.session.received == len(wire)


async def test_frames_may_arrive_all_at_once() -> None:
    async with far() as rig:
        count = 3000
        await rig.peer.send(
            encode(FrameKind.OPEN, 1, OPEN)
            + encode(FrameKind.DATA, 1, b"x" * 10) * count
            + encode(FrameKind.DATA_FIN, 1)
        )
        assert await (await rig.service()).rest() == (b"x" * 10 * count, False)


async def test_what_came_behind_the_handshake_is_handled_at_once() -> None:
    host = Host()
    async with running(host):
        calls = Handover()
        ours, theirs = sockets("tcp")
        ours.setblocking(False)
        peer = End(theirs)
        settings = SessionSettings()
        session = LaneSession(
            host.pump,
            key="1",
            name="peer/1",
            peer="peer",
            dialled=False,
            local=settings,
            remote=settings,
            replay=1 << 20,
            calls=calls,
            usage=Counting(),
        )
        link = Link(host.pump, ours, session)
        frame = encode(FrameKind.OPEN, 1, OPEN) + encode(FrameKind.DATA, 1, b"early")
        link.start(frame[:-2])
        service, _ = await calls.next.receive()
        await peer.send(frame[-2:])
        assert await service.read(5) == b"early"
        link.doom(CloseReason.STOPPED)
        host.pump.settle()
        host.check_empty()
        peer.close()
        service.close()


@pytest.mark.failure(20)
async def test_a_call_that_waits_for_room_pings_nobody() -> None:
    """The peer acknowledges nothing, and nothing more may be kept. That the caller is not read then is not because it
    has said all that it may before OPENED, of which a ping would ask the peer to tell.
    """
    async with far() as rig:
        out = rig.link.session.out
        caller, record = rig.call()
        out._bound, end = out.unacked, out.end
        await caller.send(b"hello")
        await until(lambda: record.lane._waiting, "no room")
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert out.end == end
        assert record.lane.state == StreamState.CALLING



BROKEN = {
    "unknown kind": encode(FrameKind.PING, 0, bytes(8)).replace(b"\x08", b"\x55", 1),
    "data for no stream": encode(FrameKind.DATA, 7, b"x"),
    "too large": HEADER.pack(FrameKind.DATA << 56 | 1 << KEY_SHIFT | frames.MAX_DATA + 1),
    "our id": encode(FrameKind.OPEN, 2, OPEN),
    "malformed OPEN": encode(FrameKind.OPEN, 3, b"\0"),
    "ACK of the future": encode(FrameKind.ACK, 0, (1 << 40).to_bytes(8, "big")),
}


@pytest.mark.failure(3, 18)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
async def test_a_peer_that_breaks_the_specification_is_told_and_loses_its_link_only(broken: bytes) -> None:
    async with far() as rig:
        rig.calls.kind = "tcp"
        await rig.peer.send(encode(FrameKind.OPEN, 1, OPEN))
        service = await rig.service()
        await rig.peer.send(broken)
        await rig.link.ended.wait()
        assert rig.link.reason is CloseReason.PROTOCOL_ERROR
        assert rig.link.detail
        assert rig.link.session.lost_streams == 1
        assert await rig.records[0].ended() is CloseReason.PROTOCOL_ERROR
        assert (await service.rest()).reset, "no end that looks clean"
        frame = await rig.read_frame()
        while frame[0] is not FrameKind.GOAWAY:
            frame = await rig.read_frame()
        assert frame == (FrameKind.GOAWAY, 0, bytes([CloseReason.PROTOCOL_ERROR]))


@pytest.mark.failure(19)
@pytest.mark.parametrize("more", [0, 1])
async def test_a_peer_that_sends_more_than_its_credit(more: int) -> None:
    """To a service that has not taken the connection yet, so that all of it is kept."""
    async with far() as rig:
        rig.calls.hold = True
        pieces = [encode(FrameKind.DATA, 1, bytes(size)) for size in [65536] * (CREDIT // 65536) + [1] * more]
        await rig.peer.send(encode(FrameKind.OPEN, 1, OPEN) + b"".join(pieces))
        if more:
            await rig.link.ended.wait()
            assert rig.link.reason is CloseReason.PROTOCOL_ERROR
            assert "credit" in rig.link.detail
            assert rig.host.pump.budget.used == 0
        else:
            await until(lambda: rig.host.pump.budget.used == CREDIT, "all of it")
            assert not rig.link.ended.is_set()


@pytest.mark.failure(3, 17)
@pytest.mark.parametrize("cut", [1, 7, 8, 9, 500])
async def test_a_link_cut_in_the_middle_of_a_frame(cut: int) -> None:
    """What came whole has arrived, the rest never does, and the end is not a clean one."""
    async with far() as rig:
        rig.calls.kind = "tcp"
        frame = encode(FrameKind.DATA, 1, b"x" * 1000)
        await rig.peer.send(encode(FrameKind.OPEN, 1, OPEN) + frame + frame[:cut])
        service = await rig.service()
        assert await service.read(1000) == b"x" * 1000
        rig.peer.finish()
        await rig.link.ended.wait()
        assert rig.link.reason is CloseReason.LINK_LOST
        assert rig.link.session.lost_streams == 1
        assert await service.rest() == (b"", True)


@pytest.mark.failure(3)
async def test_a_link_that_is_reset() -> None:
    async with far() as rig:
        caller, record = rig.call()
        rig.peer.abort()
        assert await record.ended() is CloseReason.LINK_LOST
        assert (await caller.rest()).reset
        assert rig.link.ended.is_set()


@pytest.mark.failure(3)
async def test_what_a_peer_said_before_writing_failed_counts() -> None:
    """It stopped, said so, and its system reset the connection: that is no lost link."""
    async with far() as rig:
        _, record = rig.call()
        rig.peer.raw.send(encode(FrameKind.GOAWAY, 0, bytes([CloseReason.STOPPED])))
        rig.peer.abort()
        rig.link.ping()
        assert rig.link.ended.is_set()
        assert (rig.link.reason, rig.link.detail) == (CloseReason.STOPPED, "ended by the peer")
        assert await record.ended() is CloseReason.STOPPED


@pytest.mark.failure(17)
async def test_a_link_lost_while_half_a_frame_is_written() -> None:
    """The peer stops reading, the socket takes a part of a frame, the link is lost: nothing is left of it."""
    async with far() as rig:
        rig.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        rig.peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        calls = [rig.call() for _ in range(8)]
        for _, record in calls:
            await rig.peer.send(encode(FrameKind.OPENED, record.lane.id))
            await record.opened.wait()

        def stuck() -> bool:
            return not sum(caller.fill() for caller, _ in calls) and rig.link.congested

        await until(stuck, "nothing more taken")
        assert rig.link.session.out.unsent
        rig.peer.abort()
        for caller, record in calls:
            assert await record.ended() is CloseReason.LINK_LOST
            assert (await caller.rest()).reset


@pytest.mark.failure(17)
@pytest.mark.parametrize("seed", range(3))
async def test_frames_stay_whole_when_the_socket_takes_them_in_parts(seed: int) -> None:
    """A peer that reads little at a time; every frame that it gets is whole and in its place."""
    random = Random(seed)
    async with far() as rig:
        rig.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        rig.peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        calls = {}
        for number in range(6):
            caller, record = rig.call()
            payload = random.randbytes(random.choice((10, 5000, 50_000, 200_000)))
            calls[record.lane.id] = (caller, payload)
            frame = encode(FrameKind.OPENED, record.lane.id)
            await rig.peer.send(frame)
            assert await rig.read_frame() == (FrameKind.OPEN, 2 + 2 * number, OPEN)
        received = {stream_id: bytearray() for stream_id in calls}
        ended: set[int] = set()
        taken = 0

        async def speak(end: End, payload: bytes) -> None:
            await end.send(payload)
            end.finish()

        async with trio.open_nursery() as nursery:
            for caller, payload in calls.values():
                nursery.start_soon(speak, caller, payload)
            while len(ended) < len(calls):
                kind, stream_id, data = await rig.read_frame()
                taken += HEADER_SIZE + len(data)
                await rig.peer.send(encode(FrameKind.ACK, 0, encode_u64(taken)))
                if kind in (FrameKind.DATA, FrameKind.DATA_FIN):
                    assert stream_id not in ended
                    received[stream_id] += data
                if kind is FrameKind.DATA_FIN:
                    ended.add(stream_id)
        for stream_id, (_, payload) in calls.items():
            assert received[stream_id] == payload


@pytest.mark.failure(5, 20)
async def test_a_full_replay_buffer_goes_on_when_the_peer_acknowledges() -> None:
    async with far(replay=2 * SLAB_SIZE) as rig:
        calls = [rig.call() for _ in range(8)]
        for _, record in calls:
            await rig.peer.send(encode(FrameKind.OPENED, record.lane.id))
        expected, got = 0, 0

        async def read_all() -> None:
            nonlocal got
            while True:
                got += len(await rig.peer.sock.recv(1 << 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all)
            for caller, _ in calls:
                nursery.start_soon(caller.send, bytes(CREDIT - 1))
                expected += CREDIT - 1
            out = rig.link.session.out
            await until(lambda: rig.link._waiting and not out.unsent and got == out.sent, "all lanes wait for an ACK")
            assert got < expected
            while got < expected:
                heard, before = rig.link.heard, got
                await rig.peer.send(encode(FrameKind.ACK, 0, got.to_bytes(8, "big")))
                await until(lambda heard=heard: rig.link.heard > heard, "the ACK")  # type: ignore[misc]
                await until(lambda before=before: got > before or got >= expected, "more")  # type: ignore[misc]
            nursery.cancel_scope.cancel()


@pytest.mark.failure(19)
async def test_a_peer_that_asks_and_never_reads_is_given_up() -> None:
    async with far(replay=2 * SLAB_SIZE) as rig:
        ping = encode(FrameKind.PING, 0, bytes(8)) * 1000
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    try:
                        while True:
                            await rig.peer.send(ping)
                    except OSError:
                        pass

                nursery.start_soon(ask)
                await rig.link.ended.wait()
                scope.cancel()
        assert rig.link.reason is CloseReason.PROTOCOL_ERROR
        assert "unacknowledged" in rig.link.detail


async def test_pings_are_answered() -> None:
    async with far() as rig:
        await rig.peer.send(encode(FrameKind.PING, 0, b"12345678"))
        kind, _, payload = await rig.read_frame()
        if kind is FrameKind.ACK:
            kind, _, payload = await rig.read_frame()
        assert (kind, payload) == (FrameKind.PONG, b"12345678")


async def test_the_time_to_the_peer_is_measured() -> None:
    async with far() as rig:
        assert rig.link.rtt is None
        rig.link.ping()
        kind, _, token = await rig.read_frame()
        assert kind is FrameKind.PING
        await rig.peer.send(encode(FrameKind.PONG, 0, token))
        await until(lambda: rig.link.rtt is not None, "rtt")


async def test_draining_lets_open_streams_finish_and_takes_no_more() -> None:
    async with rig() as joined:
        stream = await joined.stream()
        joined.far.drain()
        await until(lambda: not joined.near.usable, "the word to arrive")
        assert not joined.far.usable
        await stream.caller.send(b"last words")
        stream.caller.finish()
        assert await stream.service.rest() == (b"last words", False)
        assert not joined.near.ended.is_set()
        stream.service.close()
        assert await stream.caller.rest() == (b"", False)
        for link in (joined.near, joined.far):
            await link.ended.wait()
            assert (link.reason, link.session.lost_streams) == (CloseReason.STOPPED, 0)


async def test_a_drained_link_without_streams_ends_when_the_peer_knows() -> None:
    async with rig() as joined:
        joined.near.drain()
        assert not joined.near.ended.is_set()
        for link in (joined.near, joined.far):
            await link.ended.wait()
            assert link.reason is CloseReason.STOPPED


@pytest.mark.parametrize("reason", [CloseReason.STOPPED, CloseReason.PROTOCOL_ERROR, CloseReason.DUPLICATE])
async def test_a_peer_that_ends_the_link_says_why(reason: CloseReason) -> None:
    async with rig() as joined:
        stream = await joined.stream()
        joined.far.doom(reason, "because")
        joined.b.pump.settle()
        await joined.near.ended.wait()
        assert joined.near.reason is reason
        assert await stream.outbound.ended() is reason


async def test_addresses_and_counts() -> None:
    async with rig() as joined:
        assert joined.near.local_address == joined.far.remote_address
        assert joined.near.remote_address == joined.far.local_address
        stream = await joined.stream()
        assert joined.near.streams == joined.far.streams == 1
        assert joined.near.age >= 0
        stream.caller.close()
        await stream.service.rest()
        stream.service.close()
        await stream.over()
        assert joined.near.streams == 0
        await until(lambda: joined.far.streams == 0, "both")


async def test_frames_and_sends_are_counted() -> None:
    async with rig() as joined:
        stream = await joined.stream(early=b"one")
        assert await stream.service.read(3) == b"one"
        await stream.outbound.opened.wait()
        out = joined.near.session.out
        frames, sends = out.frames, out.sends
        assert frames >= 2  # OPEN, and DATA behind it
        for _ in range(3):
            await stream.caller.send(b"m")
            assert await stream.service.read(1) == b"m"
        assert out.frames - frames >= 3
        assert 3 <= out.sends - sends <= out.frames - frames
        assert out.resent == 0


async def test_retransmits_of_a_links_connection_are_the_sessions_for_ever() -> None:
    async with rig(survives=True) as joined:
        assert joined.near.retransmits == joined.near.session.retransmits == 0
        joined.near.session.retransmits = 7  # of links before
        await joined.cut()
        assert joined.near.retransmits == joined.near.session.retransmits >= 7
