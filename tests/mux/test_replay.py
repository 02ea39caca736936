from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProtocolError
from proxy.mux.frames import HEADER_SIZE, MAX_DATA, FrameKind, encode
from proxy.mux.replay import FlushQueue, ReplayBuffer
from proxy.mux.sizes import CHUNK, FAST_LIMIT, HIGH_WATER, SLAB_SIZE
from proxy.mux.slabpool import SlabPool

BOUND = 1 << 20


class Out:
    """A buffer together with what a link that takes everything would do."""

    def __init__(self, bound: int = BOUND, pool: SlabPool | None = None) -> None:
        self.pool = pool or SlabPool()
        self.queue = FlushQueue()
        self.later: list[ReplayBuffer] = []
        self.buffer = ReplayBuffer(self.pool, self.queue, self.later, bound)
        self.wire = bytearray()

    @property
    def touched(self) -> list[ReplayBuffer]:
        """What waits for a flush, in order."""
        waiting, out = [], self.queue.first
        while out is not None:
            waiting.append(out)
            out = out.behind
        return waiting

    def data(self, payload: bytes, stream_id: int = 1) -> bool:
        """As the session does it; False: no room."""
        buffer = self.buffer
        if not buffer.room(len(payload)):
            return False
        frame = encode(FrameKind.DATA, stream_id, payload)
        buffer.mem[buffer.pos : buffer.pos + len(frame)] = frame
        buffer.pos += len(frame)
        buffer.touch()
        return True

    def send(self, most: int = 1 << 40) -> None:
        while most and (view := self.buffer.unsent_view()[:most]):
            self.wire += view
            self.buffer.sent += len(view)
            most -= len(view)
        self.queue.take()

    def fill(self, size: int = MAX_DATA) -> int:
        """Send until there is no room; returns the payload bytes."""
        taken = 0
        while self.data(bytes(size)):
            taken += size
            self.send()
        return taken


steps = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(0, MAX_DATA)),
        st.tuples(st.just("control"), st.integers(0, 300)),
        st.tuples(st.just("send"), st.integers(0, 200_000)),
        st.tuples(st.just("ack"), st.integers(0, 100)),
    ),
    max_size=60,
)


@pytest.mark.failure(20)
@given(steps)
def test_what_is_written_is_what_is_sent_whatever_the_cuts(script: list[tuple[str, int]]) -> None:
    out, expected = Out(), bytearray()
    for number, (what, size) in enumerate(script):
        payload = bytes([number]) * size
        if what == "data" and out.data(payload, number):
            expected += encode(FrameKind.DATA, number, payload)
        elif what == "control":
            out.buffer.put(FrameKind.RST, number, payload)
            expected += encode(FrameKind.RST, number, payload)
        elif what == "send":
            out.send(size)
        elif what == "ack":
            out.buffer.acknowledge_untrusted(out.buffer.sent * size // 100)
        buffer = out.buffer
        assert buffer.end == len(expected)
        assert 0 <= buffer.acked <= buffer.sent <= buffer.end
        assert buffer.unacked <= out.pool.in_use * SLAB_SIZE
    out.send()
    assert out.wire == expected


@given(steps, st.floats(0, 1))
def test_kept_bytes_can_be_sent_again(script: list[tuple[str, int]], back: float) -> None:
    """What a later version does after a lost link: it moves ``sent`` back to what the peer has."""
    out = Out()
    for what, size in script:
        if what == "data":
            out.data(bytes([size % 251]) * size)
        elif what == "control":
            out.buffer.put(FrameKind.CREDIT, size, bytes(4))
        elif what == "send":
            out.send(size)
        else:
            out.buffer.acknowledge_untrusted(out.buffer.sent * size // 100)
    out.send()
    buffer = out.buffer
    received = buffer.acked + int((buffer.end - buffer.acked) * back)
    before, buffer.sent = bytes(out.wire), received
    out.wire.clear()
    out.send()
    assert out.wire == before[received:]


@pytest.mark.failure(20)
def test_a_full_slab_rolls_and_comes_back_after_the_ack() -> None:
    out = Out()
    for _ in range(4):
        assert out.data(bytes(MAX_DATA))
        out.send()
    assert out.pool.in_use == 2
    out.buffer.acknowledge_untrusted(out.buffer.sent)
    assert out.pool.in_use == 1
    assert out.buffer.unacked == 0


def test_a_slab_whose_bytes_are_all_acknowledged_is_used_again_at_once() -> None:
    out = Out()
    for _ in range(40):
        assert out.data(bytes(MAX_DATA))
        out.send()
        out.buffer.acknowledge_untrusted(out.buffer.sent)
    assert (out.pool.in_use, out.pool.bytes_held) == (1, SLAB_SIZE)


@pytest.mark.failure(19, 20)
def test_data_stops_at_the_bound_in_bytes() -> None:
    out = Out()
    out.fill()
    assert BOUND - MAX_DATA - HEADER_SIZE < out.buffer.unacked <= BOUND
    assert out.buffer.limit < 0
    assert out.pool.in_use <= BOUND // (SLAB_SIZE - MAX_DATA) + 1
    # Many small messages count in bytes as well, not in pieces.
    small = Out()
    assert small.fill(1) == small.buffer.unacked // (HEADER_SIZE + 1)
    assert small.buffer.unacked <= BOUND


@pytest.mark.failure(5)
def test_room_that_an_ack_makes_is_told() -> None:
    """Everybody waits for room, nothing is unsent, nobody has anything else to say: the ACK must wake the driver."""
    out = Out()
    out.fill()
    assert not out.data(b"x" * MAX_DATA)
    assert out.touched == []
    out.buffer.acknowledge_untrusted(out.buffer.sent)
    assert out.touched == [out.buffer]
    assert out.data(b"x" * MAX_DATA)


def test_an_ack_that_nobody_waits_for_wakes_nobody() -> None:
    out = Out()
    out.data(b"x")
    out.send()
    out.buffer.acknowledge_untrusted(out.buffer.sent)
    assert out.touched == []


@pytest.mark.failure(4, 20)
def test_data_waits_while_too_much_is_unsent() -> None:
    out = Out()
    while out.data(bytes(CHUNK)):
        pass
    assert HIGH_WATER < out.buffer.unsent <= HIGH_WATER + CHUNK + HEADER_SIZE
    out.send(CHUNK + HEADER_SIZE)
    assert out.data(b"x")


@pytest.mark.failure(19, 20)
def test_control_frames_have_as_much_again_and_then_the_link_must_end() -> None:
    out = Out()
    out.fill()
    while not out.buffer.overrun:
        out.send()
        out.buffer.put(FrameKind.PONG, 0, bytes(8))
    assert 2 * BOUND - 16 < out.buffer.unacked <= 2 * BOUND
    assert out.touched == [out.buffer]
    end = out.buffer.end
    out.buffer.put(FrameKind.PONG, 0, bytes(8))
    assert out.buffer.end == end
    assert out.pool.in_use <= 2 * BOUND // (SLAB_SIZE - MAX_DATA) + 1


def test_the_bound_is_never_below_two_slabs() -> None:
    out = Out(bound=1)
    out.fill()
    assert out.buffer.unacked > 2 * SLAB_SIZE - MAX_DATA - HEADER_SIZE


def test_the_fast_limit_leaves_room_for_a_whole_chunk() -> None:
    """The turn writes without asking while ``pos <= limit``."""
    assert FAST_LIMIT + HEADER_SIZE + CHUNK <= SLAB_SIZE
    out = Out()
    assert out.buffer.limit == FAST_LIMIT
    while out.data(bytes(CHUNK)):
        pass
    assert out.buffer.pos > out.buffer.limit, "no room: the turn must ask as well"
    out.send()
    assert out.buffer.room(1)
    assert out.buffer.limit == FAST_LIMIT


def test_a_full_buffer_stays_full_when_a_control_frame_takes_the_next_slab() -> None:
    out = Out()
    while out.data(bytes(CHUNK)):
        pass
    slabs = out.pool.in_use
    while out.pool.in_use == slabs:
        out.buffer.put(FrameKind.PING, 0, bytes(8))
    assert out.buffer.limit < 0


def test_acks_only_move_forward_and_never_beyond_what_was_sent() -> None:
    out = Out()
    out.data(b"x" * 92)
    out.send(60)
    out.buffer.acknowledge_untrusted(60)
    out.buffer.acknowledge_untrusted(10)
    assert out.buffer.acked == 60
    with pytest.raises(ProtocolError, match="ACK of offset 61, but only 60 bytes were sent"):
        out.buffer.acknowledge_untrusted(61)


def test_buffers_are_flushed_in_the_order_in_which_they_were_touched() -> None:
    queue, pool, later = FlushQueue(), SlabPool(), list[ReplayBuffer]()
    one, two, three = (ReplayBuffer(pool, queue, later, BOUND) for _ in range(3))
    for out in (two, one, two, three):
        out.touch()
    assert queue.take() is two
    assert (two.dirty, one.dirty, queue.last) == (False, True, three)
    two.touch()
    assert [queue.take() for _ in range(4)] == [one, three, two, None]
    one.touch()
    assert (queue.first, queue.last, one.behind) == (one, one, None)


def test_each_buffer_is_touched_once() -> None:
    out = Out()
    for _ in range(3):
        out.buffer.put(FrameKind.OPENED, 1)
    assert out.touched == [out.buffer]


def test_a_patient_frame_asks_for_no_send_of_its_own() -> None:
    out = Out()
    for _ in range(3):
        out.buffer.put(FrameKind.OPENED, 1, deferrable=True)
    assert (out.touched, out.later) == ([], [out.buffer])
    out.buffer.put(FrameKind.PING, 0, bytes(8))
    assert out.touched == [out.buffer]
    out.buffer.put(FrameKind.OPENED, 1, deferrable=True)
    assert out.later == [out.buffer]
    assert bytes(out.buffer.unsent_view()) == encode(FrameKind.OPENED, 1) * 3 + encode(
        FrameKind.PING, 0, bytes(8)
    ) + encode(FrameKind.OPENED, 1)


@pytest.mark.failure(1)
def test_closing_gives_every_slab_back_once() -> None:
    out = Out()
    out.fill()
    assert out.pool.in_use > 1
    out.buffer.close()
    out.buffer.close()
    assert out.pool.in_use == 0


def test_a_closed_buffer_takes_nothing() -> None:
    """Its slabs may be another session's by now."""
    pool = SlabPool()
    closed = Out(pool=pool)
    closed.buffer.close()
    other = Out(pool=pool)
    other.data(b"theirs")
    closed.buffer.put(FrameKind.GOAWAY, 0, b"x")
    assert not closed.data(b"mine")
    assert closed.buffer.limit < 0
    assert closed.touched == []
    other.send()
    assert other.wire == encode(FrameKind.DATA, 1, b"theirs")


def test_what_goes_out_again_is_counted() -> None:
    out = Out()
    for _ in range(3):
        out.buffer.put(FrameKind.PING, 0, bytes(8))
    out.send()
    size = HEADER_SIZE + 8
    out.buffer.rewind_untrusted(size)
    assert (out.buffer.frames, out.buffer.resent) == (3, 2 * size)
    out.send()
    out.buffer.rewind_untrusted(3 * size)
    assert out.buffer.resent == 2 * size
