"""The common case by itself: what it does, and what it hands on. Compiled or not, it has to pass these tests."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from random import Random
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

import pytest

from proxy.core.syscalls import Epoll
from proxy.errors import ProtocolError
from proxy.mux.frames import HEADER, HEADER_SIZE, ID_MASK, KEY_SHIFT, KIND_SHIFT, MAX_DATA, FrameKind, encode
from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import SessionSettings
from proxy.mux.sizes import CHUNK, NEAR, SLAB_SIZE
from proxy.mux.stream import StreamState
from proxy.pump import turn
from proxy.pump.budget import MemoryBudget
from proxy.pump.carrier import CarriedSession, UsageObserver
from proxy.pump.lane import Lane
from proxy.pump.loop import Pump
from proxy.pump.pace import SLICE

CREDIT = 10 * CHUNK
GRANT_BELOW = 1000


class SpyLane(Lane):
    """A lane in plain flow that keeps a diary of what the turn tells it, and does nothing else."""

    def __init__(self, session: CarriedSession, stream_id: int) -> None:
        super().__init__(session, stream_id, StreamState.OPEN, CREDIT, CREDIT)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.fd, self.flowing = self.ours.fileno(), True
        self.calls: list[tuple[Any, ...]] = []

    def on_recv_error(self, code: int) -> None:
        self.calls.append(("on_recv_error", code))

    def on_eof(self) -> None:
        self.calls.append(("on_eof",))

    def leave_plain_flow(self, length: int) -> None:
        self.calls.append(("leave_plain_flow", length))

    def on_untaken(self, taken: int, data: bytearray) -> None:
        self.calls.append(("on_untaken", taken, bytes(data)))


class SpySession(CarriedSession):
    """Writes down the frames that the turn hands on."""

    others: list[bytes]

    def handle(self, word: int, buf: bytearray, body: int, stop: int) -> None:
        kind, stream_id = word >> KIND_SHIFT, word >> KEY_SHIFT & ID_MASK
        if stop - body > MAX_DATA or kind not in {*FrameKind}:
            return super().handle(word, buf, body, stop)  # raises
        self.others.append(encode(FrameKind(kind), stream_id, bytes(buf[body:stop])))


class Desk:
    """Lanes on one out-buffer, and a turn at a time."""

    def __init__(self) -> None:
        self.pump = Pump(MemoryBudget(1 << 20), turn.LaneReader())
        self.touched = self.pump.touched
        self.out = ReplayBuffer(self.pump.slabs, self.touched, [], 4 << 20)
        settings = SessionSettings()
        self.session = SpySession(
            self.pump,
            name="",
            peer="",
            usage=UsageObserver(),
            dialler=True,
            out=self.out,
            local=settings,
            remote=settings,
        )
        self.others = self.session.others = []
        self.session.grant_below = GRANT_BELOW
        self.lanes = [SpyLane(self.session, stream_id) for stream_id in (1, 3, 0xFFFFFFFF)]
        self.session.streams.update({lane.id: lane for lane in self.lanes})

    def collect(
        self, *events: tuple[int, int], meanwhile: Callable[[], object] = lambda: None
    ) -> list[tuple[int, int]]:
        """A turn of these events, which a look at the descriptors finds; `meanwhile` happens before the turn."""
        found = Epoll(len(events))
        for event in events:
            found.add(*event)
        assert found.wait(0, len(events)) == len(events)
        assert [(found.at(index), found.mask) for index in range(len(events))] == list(events)
        meanwhile()
        lanes: list[Lane | None] = [None] * (1 + max(fd for fd, _ in events))
        for lane in self.lanes:
            lanes[lane.fd : lane.fd + 1] = [lane] if lane.fd < len(lanes) else []
        left = turn.LaneReader().read(found, len(events), lanes)
        handed_back = [(found.at(index), found.mask) for index in range(left)]
        found.close()
        return handed_back

    def sent(self) -> bytes:
        """What the out-buffer holds, which is then sent."""
        data = bytes(self.out.unsent_view())
        self.out.sent += len(data)
        return data

    def deliver(self, frames: bytes, *, end: int | None = None, most: int = 1000) -> int:
        self.session.slow_left = most
        return turn.deliver(self.session, bytearray(frames), 0, len(frames) if end is None else end)


@pytest.fixture(params=[True, False], ids=["near", "looked up"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk()
    for lane in desk.lanes if request.param else ():
        desk.session.near[lane.id >> 1 & NEAR] = lane
    yield desk
    for lane in desk.lanes:
        lane.ours.close()
        lane.theirs.close()
    desk.out.close()
    desk.pump.shut_down()


# ------------------------------------------------------------------------------------------------------------- collect


def test_each_ready_socket_gives_one_frame(desk: Desk) -> None:
    one, two, three = desk.lanes
    one.theirs.send(b"first")
    three.theirs.send(b"x" * 1000)
    two.theirs.send(b"not looked at")
    assert desk.collect((three.fd, EPOLLIN), (one.fd, EPOLLIN)) == []
    assert desk.sent() == encode(FrameKind.DATA, 0xFFFFFFFF, b"x" * 1000) + encode(FrameKind.DATA, 1, b"first")
    assert (one.credit, two.credit, three.credit) == (CREDIT - 5, CREDIT, CREDIT - 1000)
    assert one.calls == two.calls == three.calls == []


def test_the_out_buffer_is_touched_once(desk: Desk) -> None:
    for lane in desk.lanes:
        lane.theirs.send(b"x")
    desk.collect(*((lane.fd, EPOLLIN) for lane in desk.lanes))
    assert desk.touched.take() is desk.out
    assert desk.touched.first is None


@pytest.mark.parametrize("mask", [EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLHUP, EPOLLERR, EPOLLHUP])
def test_anything_but_readable_is_handed_back(desk: Desk, mask: int) -> None:
    lane = desk.lanes[0]
    lane.theirs.send(b"x")
    if mask & EPOLLHUP:
        lane.theirs.close()
    if mask in (EPOLLERR, EPOLLHUP):  # without any other: only a pipe has that
        reader, writer = os.pipe()
        kept, closed = (writer, reader) if mask == EPOLLERR else (reader, writer)
        os.close(closed)
        os.dup2(kept, lane.fd)
        os.close(kept)
    assert desk.collect((lane.fd, mask)) == [(lane.fd, mask)]
    assert desk.sent() == b""
    assert desk.touched.first is None


def test_descriptors_of_no_lane_are_handed_back_in_order(desk: Desk) -> None:
    lane = desk.lanes[0]
    one, other = socket.socketpair()
    with one, other:
        for sock in (one, other, lane.theirs):
            sock.send(b"x")
        before, behind = (one.fileno(), EPOLLIN), (other.fileno(), EPOLLIN)
        assert desk.collect(before, (lane.fd, EPOLLIN), behind) == [before, behind]
    assert desk.sent() == encode(FrameKind.DATA, 1, b"x")


@pytest.mark.failure(20)
def test_no_room_is_handed_back_and_nothing_is_read(desk: Desk) -> None:
    lane = desk.lanes[0]
    lane.theirs.send(b"x")
    desk.out.limit = -1
    assert desk.collect((lane.fd, EPOLLIN)) == [(lane.fd, EPOLLIN)]
    assert lane.ours.recv(10) == b"x"


def test_end_and_reset_are_told_and_write_nothing(desk: Desk) -> None:
    ended, reset, empty = desk.lanes
    reset.ours.send(b"unread")

    def read_and_end() -> None:
        for lane in desk.lanes:
            lane.ours.recv(1)
        ended.theirs.close()
        reset.theirs.close()

    for lane in desk.lanes:
        lane.theirs.send(b"x")
    desk.collect(*((lane.fd, EPOLLIN) for lane in desk.lanes), meanwhile=read_and_end)
    assert ended.calls == [("on_eof",)]
    assert reset.calls == [("on_recv_error", errno.ECONNRESET)]
    assert empty.calls == [("on_recv_error", errno.EAGAIN)]
    assert desk.out.end == 0
    assert desk.touched.first is None


@pytest.mark.parametrize(("size", "left"), [(CHUNK - 1, 0), (CHUNK, 0), (CHUNK + 1, 1), (3 * CHUNK, 2 * CHUNK)])
def test_a_whole_chunk_is_bulk(desk: Desk, size: int, left: int) -> None:
    lane = desk.lanes[0]
    lane.theirs.send(bytes(size))
    desk.collect((lane.fd, EPOLLIN))
    assert desk.sent() == encode(FrameKind.DATA, 1, bytes(size - left))
    assert lane.calls == ([("leave_plain_flow", CHUNK)] if size >= CHUNK else [])


@pytest.mark.parametrize(("credit", "leaves"), [(CHUNK + 10, False), (CHUNK + 9, True)])
def test_a_lane_leaves_when_less_than_a_chunk_of_credit_is_left(desk: Desk, credit: int, leaves: bool) -> None:
    lane = desk.lanes[0]
    lane.credit = credit
    lane.theirs.send(bytes(10))
    desk.collect((lane.fd, EPOLLIN))
    assert lane.credit == credit - 10
    assert lane.calls == ([("leave_plain_flow", 10)] if leaves else [])


@pytest.mark.failure(20)
def test_a_slab_is_filled_to_its_limit_and_not_beyond(desk: Desk) -> None:
    lane = desk.lanes[0]
    lane.credit = 1 << 30
    random, expected = Random(1), b""
    while True:
        piece = random.randbytes(random.randrange(1, CHUNK))
        lane.theirs.send(piece)
        if desk.collect((lane.fd, EPOLLIN)):
            break
        expected += encode(FrameKind.DATA, 1, piece)
    assert SLAB_SIZE - CHUNK - HEADER_SIZE < desk.out.pos <= SLAB_SIZE
    assert desk.sent() == expected


# ------------------------------------------------------------------------------------------------------------- deliver


def test_plain_frames_go_to_their_sockets(desk: Desk) -> None:
    one, two, three = desk.lanes
    frames = b"".join(
        encode(FrameKind.DATA, stream_id, data)
        for stream_id, data in ((1, b"a"), (0xFFFFFFFF, b"b" * 500), (1, b"c"))
    )
    assert desk.deliver(frames) == len(frames)
    assert (one.theirs.recv(10), three.theirs.recv(1000)) == (b"ac", b"b" * 500)
    assert (one.allow, two.allow, three.allow) == (CREDIT - 2, CREDIT, CREDIT - 500)
    assert one.calls == two.calls == three.calls == []


def test_frames_may_come_in_pieces(desk: Desk) -> None:
    first, second = encode(FrameKind.DATA, 1, b"whole"), encode(FrameKind.DATA, 3, b"second")
    for end in range(len(first), len(first + second)):
        assert desk.deliver(first + second, end=end) == len(first)
    assert desk.lanes[1].allow == CREDIT


@pytest.mark.parametrize("kind", [kind for kind in FrameKind if kind is not FrameKind.DATA])
def test_every_other_frame_is_handed_on(desk: Desk, kind: FrameKind) -> None:
    other = encode(kind, 1, b"other")
    frames = encode(FrameKind.DATA, 1, b"plain") + other + encode(FrameKind.DATA, 1, b" behind it")
    assert desk.deliver(frames) == len(frames)
    assert desk.others == [other]
    assert desk.lanes[0].theirs.recv(100) == b"plain behind it"


def test_so_many_other_frames_end_a_turn(desk: Desk) -> None:
    frames = encode(FrameKind.OPENED, 1) * 3 + encode(FrameKind.DATA, 1, b"x")
    assert desk.deliver(frames, most=2) == 2 * HEADER_SIZE
    assert desk.others == [encode(FrameKind.OPENED, 1)] * 2


@pytest.mark.failure("21b-d")
@pytest.mark.parametrize("size", [1, 100, 1000])
def test_no_frame_begins_behind_a_slice(desk: Desk, size: int) -> None:
    """So that whoever calls looks at the clock; a large frame is handled all the same."""
    frame = encode(FrameKind.DATA, 1, b"x" * size)
    pos = desk.deliver(frame * (3 * SLICE // len(frame)))
    assert SLICE < pos <= SLICE + len(frame)
    assert CREDIT - desk.lanes[0].allow == size * (pos // len(frame))
    assert desk.deliver(encode(FrameKind.OPENED, 1, bytes(2 * SLICE)) + frame) == HEADER_SIZE + 2 * SLICE


def test_a_frame_that_ends_the_link_is_the_last_one(desk: Desk) -> None:
    desk.session.reading_stopped = True
    assert desk.deliver(encode(FrameKind.GOAWAY, 0, b"x") * 2) == HEADER_SIZE + 1


def test_data_of_a_stream_that_is_not_in_plain_flow_is_handed_on(desk: Desk) -> None:
    frames = [encode(FrameKind.DATA, 5, b"x"), encode(FrameKind.DATA, 0, b"x")]
    desk.deliver(b"".join(frames))
    assert desk.others == frames


@pytest.mark.parametrize(("allow", "handled"), [(GRANT_BELOW + 10, True), (GRANT_BELOW + 9, False), (9, False)])
def test_a_frame_after_which_credit_is_due_is_handed_on(desk: Desk, allow: int, handled: bool) -> None:
    lane = desk.lanes[0]
    lane.allow = allow
    frame = encode(FrameKind.DATA, 1, bytes(10))
    assert desk.deliver(frame) == len(frame)
    assert desk.others == ([] if handled else [frame])
    assert lane.allow == (allow - 10 if handled else allow)


@pytest.mark.failure(20)
def test_what_a_socket_does_not_take_is_told_and_the_next_stream_is_served(desk: Desk) -> None:
    full, other = desk.lanes[:2]
    full.allow = other.allow = 1 << 30
    taken = 0
    while not full.calls:
        assert desk.deliver(encode(FrameKind.DATA, 1, bytes(10_000))) == 10_008
        taken += 10_000
    frames = encode(FrameKind.DATA, 1, b"more") + encode(FrameKind.DATA, 3, b"other")
    assert desk.deliver(frames) == len(frames)
    assert other.theirs.recv(10) == b"other"
    [first, *_rest, last] = full.calls
    kept = first[-1][max(first[1], 0) :] + last[-1]
    assert last == ("on_untaken", -errno.EAGAIN, b"more")
    received = bytearray()
    full.ours.shutdown(socket.SHUT_WR)
    while piece := full.theirs.recv(1 << 20):
        received += piece
    assert bytes(received) + kept == bytes(taken) + b"more"


def test_a_partial_send_is_told(desk: Desk) -> None:
    lane, data = desk.lanes[0], Random(1).randbytes(MAX_DATA)
    lane.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    assert desk.deliver(encode(FrameKind.DATA, 1, data)) == HEADER_SIZE + MAX_DATA
    [(what, taken, untaken)] = lane.calls
    assert (what, untaken) == ("on_untaken", data)
    assert 0 < taken < MAX_DATA
    assert lane.theirs.recv(MAX_DATA) == data[:taken]


def test_a_socket_that_is_gone_is_told_and_the_next_stream_is_served(desk: Desk) -> None:
    gone, other = desk.lanes[:2]
    gone.theirs.close()
    frames = encode(FrameKind.DATA, 1, b"x") + encode(FrameKind.DATA, 3, b"other")
    assert desk.deliver(frames) == len(frames)
    assert gone.calls == [("on_untaken", -errno.EPIPE, b"x")]
    assert other.theirs.recv(10) == b"other"
    gone.theirs = socket.socket()


def test_a_frame_without_bytes_is_handed_on(desk: Desk) -> None:
    desk.deliver(HEADER.pack(1 << 24))
    assert desk.others == [HEADER.pack(1 << 24)]


@pytest.mark.parametrize("size", [MAX_DATA, MAX_DATA + 1])
def test_a_frame_that_is_too_large_is_refused(desk: Desk, size: int) -> None:
    """Whether the peer breaks the specification must not depend on how its bytes were cut."""
    frame = HEADER.pack(1 << 24 | size) + bytes(size)
    desk.session.grant_below = 0
    with nullcontext() if size <= MAX_DATA else pytest.raises(ProtocolError):
        assert desk.deliver(frame) == len(frame)
    assert desk.others == []


def test_a_frame_of_an_unknown_kind_is_refused(desk: Desk) -> None:
    with pytest.raises(ProtocolError):
        desk.deliver(HEADER.pack(0x55 << 56))
