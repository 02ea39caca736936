"""Links that are lost under two sessions, without I/O: after any cut, nothing is lost and nothing doubled; and what a
peer may say about what it has received.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CloseReason, ProtocolError
from proxy.mux.frames import HEADER_SIZE, MAX_DATA, FrameKind, encode
from proxy.mux.session import SessionSettings
from proxy.mux.sizes import SLAB_SIZE
from proxy.mux.stream import StreamState
from tests.mux.pair import MIB, Pair, Side, Talk, check

pytestmark = pytest.mark.failure(3, 7)


def conversation(pair: Pair) -> tuple[Talk, Talk]:
    """Something of everything is due in both directions; nothing of it has been sent."""
    mine, theirs = pair.open()
    pair.a.send(mine, b"question")
    pair.b.send(theirs, b"answer")
    pair.a.session.fin(pair.a.open("other"))
    aborted = pair.b.open("back")
    pair.b.send(aborted, b"half")
    pair.b.session.reset(aborted, CloseReason.ABORTED)
    pair.a.session.ping(7)
    pair.b.session.ping(8)
    pair.a.session.fin(mine)
    pair.b.send(theirs, b" and more")
    pair.b.session.fin(theirs)
    return mine, theirs


def is_whole(pair: Pair, mine: Talk, theirs: Talk) -> None:
    assert (theirs.got, theirs.events) == (b"question", ["fin"])
    assert (mine.got, mine.events) == (b"answer and more", ["opened", "fin"])
    assert [call.service for _, call in pair.b.calls] == ["web", "other"]
    assert [(call.service, bytes(stream.got), stream.events) for stream, call in pair.a.calls] == [
        ("back", b"half", ["rst aborted"])
    ]
    assert (pair.a.pongs, pair.b.pongs) == ([7], [8])
    check(pair.a)
    check(pair.b)


LENGTHS = [len(side.take()) for pair in [Pair()] for _ in [conversation(pair)] for side in (pair.a, pair.b)]


@pytest.mark.parametrize("there", range(LENGTHS[0] + 1))
def test_cut_at_every_byte(there: int) -> None:
    """With each cut of the one direction, all those of the other."""
    for back in range(LENGTHS[1] + 1):
        pair = Pair()
        ends = conversation(pair)
        to_b, to_a = pair.a.take()[:there], pair.b.take()[:back]
        pair.b.feed(to_b)
        pair.a.feed(to_a)
        pair.relink()
        pair.cross()
        is_whole(pair, *ends)


def test_lost_again_and_again_at_every_byte() -> None:
    """The link carries one byte more before each loss."""
    pair = Pair()
    ends = conversation(pair)
    for most in range(max(LENGTHS) + 200):
        to_b, to_a = pair.a.take(most), pair.b.take(most)
        pair.b.feed(to_b)
        pair.a.feed(to_a)
        pair.relink()
    pair.cross()
    is_whole(pair, *ends)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans(), st.just(0)),
        st.tuples(st.just("send"), st.booleans(), st.integers(1, 40_000)),
        st.tuples(st.sampled_from(["fin", "reset", "read", "ping"]), st.booleans(), st.integers(0, 9)),
        st.tuples(st.just("carry"), st.booleans(), st.integers(0, 100_000)),
        st.tuples(st.just("lose"), st.booleans(), st.integers(0, 50_000)),
    ),
    max_size=60,
)


@pytest.mark.failure(20)
@given(steps)
def test_any_conversation_over_any_losses(script: list[tuple[str, bool, int]]) -> None:
    credit = SessionSettings(stream_credit=64 * 1024)
    pair = Pair(a=credit, b=credit, bound=2 * SLAB_SIZE)
    opened: dict[Side, list[Talk]] = {pair.a: [], pair.b: []}
    sent: dict[tuple[Side, int], bytearray] = {}
    aborted: set[int] = set()
    for number, (what, by_a, size) in enumerate(script):
        side, other = (pair.a, pair.b) if by_a else (pair.b, pair.a)
        answer(side)
        streams = list(side.session.streams.values())
        stream = streams[size % len(streams)] if streams else None
        if what == "open" and len(opened[side]) < 8:
            opened[side].append(side.open())
        elif what == "send" and stream is not None:
            data = bytes([number]) * size
            whole = sent.setdefault((side, stream.id), bytearray())
            whole += data[: side.send(stream, size_of(side, stream, data))]
        elif what == "fin" and stream is not None and side.session.sendable(stream):
            side.session.fin(stream)
        elif (
            what == "reset" and stream is not None and stream.state not in (StreamState.CALLED, StreamState.CALLED_FIN)
        ):
            side.session.reset(stream, CloseReason.ABORTED)
            aborted.add(stream.id)
        elif what == "read":
            for each in streams:
                side.read(each)
        elif what == "ping":
            side.session.ping(number)
        elif what == "carry":
            other.feed(side.take(size))
        elif what == "lose":
            other.feed(side.take()[:size])
            pair.relink()
        check(pair.a)
        check(pair.b)
    pair.relink()
    pair.cross()
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        called = {stream.id: stream for stream, _ in other.calls}
        assert called.keys() == {stream.id for stream in opened[side]}
        for mine in opened[side]:
            for end, far in ((mine, other), (called[mine.id], side)):
                whole = sent.get((far, mine.id), bytearray())
                assert whole.startswith(end.got) if mine.id in aborted else whole == end.got
    assert pair.a.session.received == pair.b.session.out.end
    assert pair.b.session.received == pair.a.session.out.end
    pair.acknowledge()
    assert not pair.a.session.lingering
    assert not pair.b.session.lingering


def size_of(side: Side, stream: Talk, data: bytes) -> bytes:
    """What of `data` a stream may send now."""
    return data[: side.session.sendable(stream, len(data))]


def answer(side: Side) -> None:
    for stream, _ in side.calls:
        if "accepted" not in stream.service and stream.state != StreamState.CLOSED:
            stream.service += " accepted"
            side.session.accept(stream)


# What the peer says that it has received


def boundaries(side: Side) -> set[int]:
    """Where frames that are kept begin, and where the last one ends."""
    wire, at = side.take(), side.session.out.acked
    found = {at}
    while wire:
        size = HEADER_SIZE + int.from_bytes(wire[5:8], "big")
        at, wire = at + size, wire[size:]
        found.add(at)
    return found


@given(st.lists(st.integers(0, 70_000), max_size=20), st.integers(0, 100), st.data())
def test_any_lie_about_what_has_arrived(sizes: list[int], part: int, data: st.DataObject) -> None:
    """It is an error and changes nothing, unless it is the beginning of a frame that is kept."""
    side = Side(remote=SessionSettings(stream_credit=MIB))
    stream = side.open()
    for number, size in enumerate(sizes):
        side.send(stream, bytes([number]) * size)
    out = side.session.out
    told = sorted(boundaries(side))[: 1 + len(sizes) * part // 100]
    out.acknowledge_untrusted(told[-1])
    side.session.resume(told[-1])
    allowed = boundaries(side)
    lie = data.draw(st.sampled_from(sorted(allowed)) | st.integers(-1, out.end + 10) | st.integers())
    before = (out.acked, out.sent, out.end)
    if lie in allowed:
        side.session.resume(lie)
        assert (out.acked, out.sent, out.end) == (lie, lie, before[2])
        assert len(side.take()) == out.end - lie
    else:
        with pytest.raises(ProtocolError, match=f"resuming at offset {lie}, "):
            side.session.resume(lie)
        assert (out.acked, out.sent, out.end) == before


def test_the_errors_say_what_is_wrong() -> None:
    pair = Pair()
    mine, _ = pair.open()
    pair.acknowledge()
    pair.a.send(mine, b"0123456789")
    pair.a.take()
    out = pair.a.session.out
    for lie, complaint in (
        (out.acked - 1, f"offset {out.acked - 1}, but {out.acked} to {out.sent} are kept"),
        (out.sent + 1, f"offset {out.sent + 1}, but {out.acked} to {out.sent} are kept"),
        (out.acked + 9, f"offset {out.acked + 9}, in the middle of a frame"),
    ):
        with pytest.raises(ProtocolError, match=f"resuming at {complaint}$"):
            pair.a.session.resume(lie)


def test_what_counts_is_what_was_handled_not_what_was_read() -> None:
    """Half a frame is forgotten and comes whole."""
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.send(mine, b"0123456789")
    wire = pair.a.take()
    pair.b.feed(wire[:-1])
    pair.relink()
    assert pair.a.take() == wire == encode(FrameKind.DATA, mine.id, b"0123456789")
    pair.b.feed(wire)
    assert theirs.got == b"0123456789"


def test_ids_that_lingered_are_free_when_an_ack_has_come_behind_late_frames() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.session.reset(mine, CloseReason.ABORTED)
    assert mine.id in pair.a.session.lingering
    pair.b.feed(pair.a.take())
    assert "rst aborted" in theirs.events
    pair.relink()
    assert mine.id in pair.a.session.lingering
    pair.b.session.acknowledge()
    pair.cross()
    assert not pair.a.session.lingering


def test_an_id_lingers_until_late_frames_that_are_sent_again_have_come() -> None:
    """What the peer says in HELLO overtakes what it sends again: only an ACK frame stands behind late frames."""
    pair = Pair()
    mine, theirs = pair.open()
    pair.acknowledge()
    pair.b.send(theirs, b"late")
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.b.feed(pair.a.take())
    pair.relink()
    pair.cross()
    assert "rst aborted" in theirs.events
    pair.b.session.acknowledge()
    pair.cross()
    assert not pair.a.session.lingering


def test_an_id_lingers_though_a_hello_acknowledged_all_that_was_sent() -> None:
    """The end that comes again has a late frame behind it: the peer wrote it before it knew of this side's end."""
    pair = Pair()
    mine, theirs = pair.open()
    pair.acknowledge()
    for _ in range(3):
        pair.a.send(mine, b"x" * MAX_DATA)
    pair.b.feed(pair.a.take())
    pair.b.session.fin(theirs)
    pair.b.read(theirs)
    pair.a.session.fin(mine)
    pair.b.feed(pair.a.take())
    pair.relink()
    assert pair.a.session.out.unacked == 0
    pair.cross()
    assert mine.state == StreamState.CLOSED
    check(pair.a)
