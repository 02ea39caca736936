from __future__ import annotations

import sys

import pytest

from proxy.errors import CloseReason, ProtocolError
from proxy.mux import frames, session
from proxy.mux.extracredit import FACTOR, PROVEN
from proxy.mux.frames import HEADER_SIZE, MAX_DATA, FrameKind, Open, encode, encode_open
from proxy.mux.session import MAX_CREDIT, SessionSettings
from proxy.mux.sizes import ACK_EVERY, NEAR
from proxy.mux.stream import StreamState
from tests.mux.pair import Pair, Side, Talk

KIB = 1024


def opening(stream_id: int, service: str = "web") -> bytes:
    return encode(FrameKind.OPEN, stream_id, frames.encode_open(Open(service)))


def deliver(side: Side) -> Talk:
    """Answer the newest call."""
    stream = side.calls[-1][0]
    side.session.accept(stream)
    return stream


# Opening


def test_open_and_early_bytes_travel_in_one_write_and_nobody_waits() -> None:
    pair = Pair()
    mine = pair.a.session.open(encode_open(Open("redis", 1000, "shop")))
    pair.a.send(mine, b"PING")
    assert pair.a.take() == encode(FrameKind.OPEN, 1, frames.encode_open(Open("redis", 1000, "shop"))) + encode(
        FrameKind.DATA, 1, b"PING"
    )
    assert mine.state == StreamState.CALLING


def test_the_called_side_has_the_call_and_the_early_bytes_before_it_answers() -> None:
    pair = Pair()
    mine = pair.a.open("redis")
    pair.a.send(mine, b"early")
    pair.a.session.fin(mine)
    pair.cross()
    theirs, call = pair.b.calls[0]
    assert (call, theirs.got, theirs.events, theirs.state) == (Open("redis"), b"early", ["fin"], StreamState.CALLED_FIN)
    pair.b.session.accept(theirs)
    pair.cross()
    assert (mine.events, mine.state, theirs.state) == (["opened"], StreamState.FIN_SENT, StreamState.FIN_RECEIVED)


@pytest.mark.failure("29")
@pytest.mark.parametrize(("newest", "told"), [(20, "local_shortage"), (19, "overloaded")])
def test_a_refusal_gives_a_reason_that_the_peer_knows(newest: int, told: str) -> None:
    side = Side(dialler=False, remote=SessionSettings(reasons=newest))
    side.feed(opening(1))
    side.session.refuse(side.calls[0][0], CloseReason.LOCAL_SHORTAGE)
    assert side.take() == encode(FrameKind.REFUSE, 1, frames.encode_reason(CloseReason[told.upper()]))


def test_a_refusal_gives_its_reason_and_leaves_nothing() -> None:
    pair = Pair()
    mine = pair.a.open()
    pair.a.send(mine, b"early")
    pair.cross()
    pair.b.session.refuse(pair.b.calls[0][0], CloseReason.NO_SUCH_SERVICE)
    pair.a.send(mine, b"more, on its way")
    pair.cross()
    assert (mine.events, mine.state) == (["refused no_such_service"], StreamState.CLOSED)
    assert not pair.a.session.streams
    assert not pair.b.session.streams


@pytest.mark.failure(16)
def test_the_called_side_may_speak_first() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.b.send(theirs, b"220 ready")
    pair.cross()
    assert mine.got == b"220 ready"
    assert mine.bytes_sent == 0


def test_both_sides_open_with_ids_of_their_own() -> None:
    pair = Pair()
    ours = [pair.a.open().id for _ in range(3)]
    theirs = [pair.b.open().id for _ in range(3)]
    assert (ours, theirs) == ([1, 3, 5], [2, 4, 6])
    pair.cross()
    assert len(pair.a.calls) == len(pair.b.calls) == 3


# Ends


@pytest.mark.failure(2)
def test_a_half_close_leaves_the_other_direction_open() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.send(mine, b"question")
    pair.a.session.fin(mine)
    pair.cross()
    assert (theirs.got, theirs.events, theirs.state) == (b"question", ["fin"], StreamState.FIN_RECEIVED)
    pair.b.send(theirs, b"answer")
    pair.b.session.fin(theirs)
    pair.cross()
    assert (mine.got, mine.events, mine.state) == (b"answer", ["opened", "fin"], StreamState.CLOSED)


@pytest.mark.failure(2)
def test_data_with_fin_is_data_and_then_an_end() -> None:
    side = Side(dialler=False)
    side.feed(opening(1) + encode(FrameKind.DATA_FIN, 1, b"all of it"))
    stream = side.calls[0][0]
    assert (stream.got, stream.events, stream.state) == (b"all of it", ["fin"], StreamState.CALLED_FIN)


@pytest.mark.failure(3)
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_is_told_as_a_reset(half_closed: bool) -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.send(mine, b"half of i")
    if half_closed:
        pair.b.session.fin(theirs)
        pair.cross()
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.cross()
    assert theirs.events == ["rst aborted"]
    assert theirs.state == StreamState.CLOSED
    assert "fin" not in theirs.events


@pytest.mark.failure(18)
def test_late_frames_for_a_stream_that_was_reset_hurt_nobody() -> None:
    """Everything that b may say before it learns of the reset."""
    pair = Pair()
    mine, theirs = pair.open()
    other, _ = pair.open()
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.b.send(theirs, b"late")
    pair.b.session.out.put(FrameKind.CREDIT, theirs.id, frames.encode_u32(5))
    pair.b.session.fin(theirs)
    pair.cross()
    assert (mine.got, mine.events) == (b"", ["opened"])
    assert list(pair.a.session.streams.values()) == [other]
    assert not pair.b.session.streams.keys() & {mine.id}


def test_both_reset_at_once() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.b.session.reset(theirs, CloseReason.STOPPED)
    pair.cross()
    assert (mine.events, theirs.events) == (["opened"], [])
    assert not pair.a.session.streams
    assert not pair.b.session.streams


def test_reset_while_the_answer_is_on_its_way() -> None:
    pair = Pair()
    mine = pair.a.open()
    pair.cross()
    theirs = deliver(pair.b)
    pair.b.send(theirs, b"hello")
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.cross()
    assert (mine.events, mine.got, theirs.events) == ([], b"", ["rst aborted"])


# Lingering ids


def test_an_id_lingers_until_the_end_is_acknowledged() -> None:
    pair = Pair()
    mine, _theirs = pair.open()
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.cross()
    assert pair.a.session.lingering.keys() == {1}
    pair.acknowledge()
    assert not pair.a.session.lingering
    assert not pair.b.session.lingering
    with pytest.raises(ProtocolError, match="DATA for stream 1, which does not exist"):
        pair.a.feed(encode(FrameKind.DATA, 1, b"x"))


def test_an_ack_of_less_than_the_end_frees_nothing() -> None:
    pair = Pair()
    mine, _ = pair.open()
    before = pair.a.session.out.end
    pair.a.session.reset(mine, CloseReason.ABORTED)
    pair.a.take()
    pair.a.feed(encode(FrameKind.ACK, 0, frames.encode_u64(before)))
    assert pair.a.session.lingering.keys() == {1}


def test_an_id_whose_end_the_peer_has_acknowledged_already_does_not_linger() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    pair.a.session.fin(mine)
    pair.cross()
    pair.b.session.acknowledge()
    pair.b.session.fin(theirs)
    pair.cross()
    assert mine.state == StreamState.CLOSED
    assert not pair.a.session.lingering


@pytest.mark.failure(19)
def test_a_peer_that_opens_and_resets_for_ever_fills_no_memory() -> None:
    side = Side(dialler=False)
    for stream_id in range(1, 2001, 2):
        side.feed(opening(stream_id) + encode(FrameKind.RST, stream_id, frames.encode_reason(CloseReason.ABORTED)))
    session = side.session
    assert (len(session.streams), len(session.lingering)) == (0, 0)


@pytest.mark.failure(19)
def test_a_peer_that_acknowledges_nothing_does_not_fill_memory_with_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_LINGERING", 30)
    side = Side(dialler=False)
    for stream_id in range(1, 61, 2):
        side.feed(opening(stream_id))
        side.session.refuse(side.calls[-1][0], CloseReason.NO_SUCH_SERVICE)
    with pytest.raises(ProtocolError, match="^OPEN while the ends of 30 streams are unacknowledged$"):
        side.feed(opening(61))


@pytest.mark.failure(19)
def test_an_id_that_a_peer_opens_again_and_again_lingers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_LINGERING", 30)
    side = Side(dialler=False)
    for _ in range(40):
        side.feed(opening(1))
        side.session.refuse(side.calls[-1][0], CloseReason.NO_SUCH_SERVICE)
    assert side.session.lingering == {1: side.session.out.end}


@pytest.mark.failure(19)
def test_ids_that_are_free_again_leave_no_room_that_each_ack_would_pass() -> None:
    side = Side(dialler=False)
    for stream_id in range(1, 4096, 2):
        side.feed(opening(stream_id))
        side.session.refuse(side.calls[-1][0], CloseReason.NO_SUCH_SERVICE)
    filled = sys.getsizeof(side.session.lingering)
    side.take()
    side.feed(encode(FrameKind.ACK, 0, frames.encode_u64(side.session.out.end)))
    assert not side.session.lingering
    assert sys.getsizeof(side.session.lingering) < filled / 8


@pytest.mark.failure(8, 19)
def test_who_hears_no_acknowledgement_opens_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "OWN_LINGERING", 10)
    pair = Pair()
    for _ in range(10):
        assert pair.a.session.can_open
        pair.a.session.reset(pair.a.open(), CloseReason.ABORTED)
    assert not pair.a.session.can_open, "the pool takes another session"
    pair.cross()
    pair.acknowledge()
    assert pair.a.session.can_open


def test_cleared_streams_are_opened_without_a_look_at_the_limits() -> None:
    pair = Pair(b=SessionSettings(max_streams=session.CLEARED + 2))
    for number in range(session.CLEARED + 2):
        assert pair.a.session.can_open
        assert pair.a.open().id == 2 * number + 1
    assert not pair.a.session.can_open
    pair.cross()
    assert len(pair.b.calls) == session.CLEARED + 2


def test_nothing_is_cleared_any_more_when_either_side_leaves() -> None:
    pair = Pair()
    assert pair.a.session.can_open
    assert pair.b.session.can_open
    pair.b.session.goaway(CloseReason.DRAINING)
    pair.cross()
    assert not pair.a.session.can_open
    pair.b.session.going_away = True
    assert not pair.b.session.can_open


@pytest.mark.failure(8)
def test_a_tiny_id_space_wraps_and_never_runs_out_of_requests() -> None:
    """Ids 1, 3, 5, 7 for a. An id is used again only when no stale frame can claim it; otherwise there is no id, and
    the pool takes another link."""
    pair = Pair(max_id=8)
    used = []
    for number in range(50):
        if not pair.a.session.can_open:
            assert pair.a.session.lingering
            pair.acknowledge()
        mine, theirs = pair.open()
        used.append(mine.id)
        pair.a.send(mine, b"request %d" % number)
        pair.a.session.fin(mine)
        pair.cross()
        pair.b.send(theirs, theirs.got)
        pair.b.session.fin(theirs)
        pair.cross()
        assert (mine.got, mine.state) == (b"request %d" % number, StreamState.CLOSED)
    assert set(used) == {1, 3, 5, 7}


def test_the_second_time_around_as_many_ids_are_cleared_at_once_as_the_first_time() -> None:
    """Or each call would pay for a look at the limits, for as long as the session lives."""
    pair = Pair(max_id=40)
    a = pair.a.session
    kept = None
    for _ in range(20):
        assert a.can_open
        kept, other = pair.open()[0], kept
        if other is not None:
            a.reset(other, CloseReason.ABORTED)
    pair.acknowledge()
    assert kept is not None
    assert kept.id == 39
    assert a.can_open
    assert a.open_quota == 19, "up to the one that is open"
    ids = [pair.open()[0].id for _ in range(19)]
    assert ids == list(range(1, 39, 2))
    a.reset(kept, CloseReason.ABORTED)
    assert not a.can_open, "it lingers"


@pytest.mark.failure(8)
def test_ids_in_use_are_stepped_over_and_when_all_are_there_is_none() -> None:
    pair = Pair(max_id=7)
    streams = [pair.open()[0] for _ in range(4)]
    assert not pair.a.session.can_open
    pair.a.session.reset(streams[2], CloseReason.ABORTED)
    assert not pair.a.session.can_open, "the id still lingers"
    pair.acknowledge()
    assert pair.a.open().id == streams[2].id


@pytest.mark.failure(8)
def test_an_id_is_free_at_once_after_the_peers_reset() -> None:
    pair = Pair(max_id=1)
    mine, theirs = pair.open()
    pair.a.send(mine, b"on its way while b resets")
    pair.b.session.reset(theirs, CloseReason.ABORTED)
    pair.a.feed(pair.b.take())
    again = pair.a.open("again")
    pair.a.send(again, b"new")
    pair.cross()
    stream, call = pair.b.calls[-1]
    assert (again.id, call.service, stream.got) == (mine.id, "again", b"new")
    assert theirs.got == b""


@pytest.mark.parametrize("stream_id", [0, 2, 9], ids=["zero", "ours", "above the highest"])
def test_open_of_an_id_that_is_not_the_peers(stream_id: int) -> None:
    side = Side(dialler=False, max_id=8)
    with pytest.raises(ProtocolError, match=f"OPEN of stream {stream_id}, which is not the peer's to open"):
        side.feed(opening(stream_id))


@pytest.mark.parametrize("meanwhile", [[], [3], [3, 5]])
def test_open_of_a_stream_that_is_open(meanwhile: list[int]) -> None:
    side = Side(dialler=False)
    with pytest.raises(ProtocolError, match="OPEN of stream 1,"):
        side.feed(b"".join(map(opening, [1, *meanwhile, 1])))


def test_a_peer_may_use_its_ids_in_any_order_and_again() -> None:
    side = Side(dialler=False)
    for stream_id in (9, 3, 5, 3, 9, 1):
        side.feed(opening(stream_id))
        stream = side.calls[-1][0]
        assert side.session.streams == {stream_id: stream}
        assert stream_id not in side.session.lingering
        side.session.refuse(stream, CloseReason.OVERLOADED)
        assert next(reversed(side.session.lingering)) == stream_id
    assert list(side.session.lingering) == [5, 3, 9, 1]


# Credit


@pytest.mark.failure(4, 20)
def test_credit_runs_out_stalls_its_own_stream_only_and_comes_back() -> None:
    pair = Pair(b=SessionSettings(stream_credit=20_000))
    mine, theirs = pair.open()
    other, _ = pair.open()
    assert pair.a.send(mine, bytes(65536)) == 20_000
    assert (pair.a.send(mine, b"x"), mine.credit) == (0, 0)
    assert pair.a.send(other, b"x") == 1
    pair.cross()
    assert theirs.allow == 0
    pair.b.read(theirs, 5_000)
    pair.cross()
    assert mine.credit == 0, "less than half is not worth a frame"
    pair.b.read(theirs, 5_000)
    pair.cross()
    assert (mine.credit, theirs.allow, mine.events) == (10_000, 10_000, ["opened", "credit"])
    pair.b.read(theirs)
    pair.cross()
    assert (mine.credit, theirs.allow) == (20_000, 20_000)


def test_reading_grants_nothing_to_a_direction_that_has_ended() -> None:
    pair = Pair(b=SessionSettings(stream_credit=20_000))
    mine, theirs = pair.open()
    pair.a.send(mine, bytes(20_000))
    pair.a.session.fin(mine)
    pair.cross()
    pair.b.read(theirs)
    assert pair.b.take() == b""


@pytest.mark.failure(19)
def test_more_than_the_credit_is_an_error() -> None:
    side = Side(dialler=False, local=SessionSettings(stream_credit=20_000))
    side.feed(opening(1) + encode(FrameKind.DATA, 1, bytes(19_999)))
    with pytest.raises(ProtocolError, match="DATA of 2 bytes on stream 1, which had 1 bytes of credit left"):
        side.feed(encode(FrameKind.DATA, 1, bytes(2)))


@pytest.mark.parametrize("grant", [0, MAX_CREDIT - 256 * KIB + 1, 0xFFFFFFFF])
def test_impossible_grants(grant: int) -> None:
    side = Side()
    side.open()
    with pytest.raises(ProtocolError, match=f"CREDIT of {grant} bytes on stream 1, which has {256 * KIB}"):
        side.feed(encode(FrameKind.CREDIT, 1, frames.encode_u32(grant)))


def test_the_greatest_grant() -> None:
    side = Side()
    stream = side.open()
    side.feed(encode(FrameKind.CREDIT, 1, frames.encode_u32(MAX_CREDIT - 256 * KIB)))
    assert stream.credit == MAX_CREDIT


def test_nothing_is_sent_before_the_answer_or_after_the_end() -> None:
    pair = Pair()
    mine = pair.a.open()
    pair.cross()
    theirs = pair.b.calls[0][0]
    assert pair.b.send(theirs, b"x") == 0
    pair.a.session.fin(mine)
    assert pair.a.send(mine, b"x") == 0


# Limits


@pytest.mark.failure(8)
def test_the_stream_limit_holds_back_the_opener() -> None:
    pair = Pair(b=SessionSettings(max_streams=2))
    first, _ = pair.open()
    pair.open()
    assert not pair.a.session.can_open
    assert pair.b.session.can_open, "the other direction has a limit of its own"
    pair.b.open()
    pair.cross()
    assert not pair.a.session.can_open
    pair.a.session.reset(first, CloseReason.ABORTED)
    assert pair.a.session.can_open, "the reset travels in front of the next OPEN"
    pair.open()


def test_more_streams_than_allowed_are_an_error() -> None:
    side = Side(dialler=False, local=SessionSettings(max_streams=2))
    side.feed(opening(1) + opening(3))
    with pytest.raises(ProtocolError, match="OPEN of more than the 2 streams that HELLO allowed"):
        side.feed(opening(5))


@pytest.mark.failure(19, 20)
def test_a_peer_that_only_pings_and_never_acknowledges_ends_the_link() -> None:
    side = Side(bound=1)
    for _ in range(200_000):
        side.feed(encode(FrameKind.PING, 0, bytes(8)))
        side.take()
        if side.session.out.overrun:
            break
    assert side.session.out.overrun
    assert side.slabs.bytes_held < 2 << 20


@pytest.mark.failure(19)
def test_while_something_is_lent_grants_are_due_earlier() -> None:
    credit = 64 * 1024
    side = Side(dialler=False, local=SessionSettings(stream_credit=credit))
    session = side.session
    side.feed(opening(1) + opening(3))
    fast, other = session.streams[1], session.streams[3]

    def use(stream: Talk, length: int, now: float) -> int:
        """Bytes that the peer is granted for so many that have come and been read."""
        stream.allow -= length
        left = stream.allow
        session.consumed(stream, 0, now)
        return stream.allow - left

    fast.granted += PROVEN
    assert use(other, credit // 4, now=1.0) == 0
    assert use(fast, credit // 2, now=1.0) == credit // 2
    assert use(fast, credit // 2, now=1.0001) == FACTOR * credit - credit // 2
    assert use(other, 1, now=1.0002) == credit // 4 + 1
    assert use(fast, FACTOR * credit - credit // 4, now=1.0003) == FACTOR * credit - credit // 4
    assert use(fast, FACTOR * credit - credit // 4, now=9.0) == credit - credit // 4, "it is slow now"
    assert use(other, credit // 4 + 1, now=9.1) == 0, "and all is as it was"


@pytest.mark.parametrize("between", [1, 2 * NEAR, 2 * (NEAR + 1), 4 * (NEAR + 1)])
def test_a_stream_is_near_until_another_one_takes_its_place_or_it_ends(between: int) -> None:
    side = Side(dialler=False)
    session, first, second = side.session, 1, 1 + 2 * between
    taken = first >> 1 & NEAR == second >> 1 & NEAR

    def near(stream_id: int) -> Talk | None:
        found = session.near[stream_id >> 1 & NEAR]
        return found if found is not None and found.id == stream_id else None

    side.feed(opening(first))
    assert near(first) is session.streams[first]
    side.feed(opening(second))
    assert near(second) is session.streams[second]
    assert near(first) is (None if taken else session.streams[first])
    for stream_id in (first, second):
        side.feed(encode(FrameKind.DATA, stream_id, b"%d" % stream_id))
        assert session.streams[stream_id].got == b"%d" % stream_id, "near or not"
    session.refuse(session.streams[first], CloseReason.OVERLOADED)
    side.feed(encode(FrameKind.DATA, first, b"late"))
    assert near(first) is None
    assert near(second) is session.streams[second]
    session.close()
    assert session.near == [None] * (NEAR + 1)


# Acknowledgements, pings


def test_an_ack_is_due_after_so_many_bytes() -> None:
    pair = Pair()
    mine, _ = pair.open()
    pair.acknowledge()
    for _ in range(4):
        pair.a.send(mine, bytes(ACK_EVERY // 4 - 2 * HEADER_SIZE))
        pair.cross()
    unacked = pair.a.session.out.unacked
    assert ACK_EVERY - 4 * HEADER_SIZE <= unacked < ACK_EVERY
    pair.a.send(mine, bytes(4 * HEADER_SIZE))
    pair.cross()
    assert pair.a.session.out.unacked < HEADER_SIZE + 8 + 1


def test_a_partial_frame_is_not_acknowledged() -> None:
    side = Side(dialler=False)
    frame = opening(1)
    side.feed(frame[:-1])
    assert side.session.received == 0
    side.feed(frame[-1:])
    assert side.session.received == len(frame)


@pytest.mark.failure(7)
def test_a_ping_is_answered_and_carries_acknowledgements_both_ways() -> None:
    pair = Pair()
    _mine, _theirs = pair.open()
    pair.a.session.ping(2**64 - 1)
    pair.cross()
    assert pair.a.pongs == [2**64 - 1]
    assert pair.a.session.out.unacked <= 2 * (HEADER_SIZE + 8)
    assert pair.b.session.out.unacked <= 2 * (HEADER_SIZE + 8)


# Going away


@pytest.mark.failure(8, 10)
def test_goaway_lets_streams_finish_also_those_that_cross_it() -> None:
    pair = Pair()
    mine, theirs = pair.open()
    crossing = pair.a.open("crossing")
    pair.b.session.goaway(CloseReason.DRAINING)
    pair.cross()
    assert pair.a.goaways == [CloseReason.DRAINING]
    assert not pair.a.session.can_open
    stream, call = pair.b.calls[-1]
    assert call.service == "crossing"
    pair.b.session.accept(stream)
    for ours, far in ((mine, theirs), (crossing, stream)):
        pair.a.send(ours, b"last words")
        pair.a.session.fin(ours)
        pair.cross()
        pair.b.session.fin(far)
        pair.cross()
        assert (far.got, ours.state) == (b"last words", StreamState.CLOSED)


@pytest.mark.failure(1)
def test_closing_returns_the_streams_and_forgets_everything() -> None:
    pair = Pair()
    mine, _ = pair.open()
    ended, _ = pair.open()
    pair.a.session.reset(ended, CloseReason.ABORTED)
    session = pair.a.session
    mine.flowing = True
    assert session.close() == [mine]
    assert session.close() == []
    assert not (session.streams)
    assert not (session.lingering)
    assert not session.can_open
    assert pair.a.slabs.in_use == 0


# Frames that nobody sends


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (encode(FrameKind.HELLO), "unknown frame kind 0x0f"),
        (b"\x01" + bytes(7), "unknown frame kind 0x01"),
        (b"\xff" + bytes(7), "unknown frame kind 0xff"),
        (encode(FrameKind.DATA, 1, bytes(MAX_DATA + 1))[:8], "DATA frame of 65537 bytes"),
        (encode(FrameKind.DATA_FIN, 1, bytes(MAX_DATA + 1))[:8], "DATA_FIN frame of 65537 bytes"),
        (encode(FrameKind.OPEN, 1, bytes(4097))[:8], "OPEN frame of 4097 bytes"),
        (encode(FrameKind.OPENED, 2, bytes(4097))[:8], "OPENED frame of 4097 bytes"),
        (encode(FrameKind.DATA, 1, b"x"), "DATA for stream 1, which does not exist"),
        (encode(FrameKind.DATA_FIN, 1), "FIN for stream 1, which does not exist"),
        (encode(FrameKind.OPENED, 2), "OPENED for stream 2, which does not exist"),
        (encode(FrameKind.RST, 3, b"\1"), "RST for stream 3, which does not exist"),
        (encode(FrameKind.REFUSE, 3, b"\1"), "REFUSE for stream 3, which does not exist"),
        (encode(FrameKind.CREDIT, 3, bytes(4)), "CREDIT for stream 3, which does not exist"),
        (encode(FrameKind.RST, 3, b"\xc8"), "RST with unknown close reason c8"),
        (encode(FrameKind.ACK, 0, frames.encode_u64(1)), "ACK of offset 1, but only 0 bytes were sent"),
        (encode(FrameKind.PING, 0, b"short"), "PING payload has 5 bytes; 8 expected"),
        (opening(1) + encode(FrameKind.OPENED, 1), "OPENED on stream 1, which is called"),
        (opening(1) + encode(FrameKind.REFUSE, 1, b"\2"), "REFUSE on stream 1, which is called"),
        (opening(1) + encode(FrameKind.DATA_FIN, 1) * 2, "FIN on stream 1, which is called_fin"),
        (
            opening(1) + encode(FrameKind.DATA_FIN, 1) + encode(FrameKind.DATA, 1, b"x"),
            "DATA on stream 1, which is called_fin",
        ),
        (opening(1) + encode(FrameKind.DATA, 1), "empty DATA on stream 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_is_one_clear_line(frame: bytes, complaint: str) -> None:
    side = Side(dialler=False)
    with pytest.raises(ProtocolError) as caught:
        side.feed(frame)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("kind", [FrameKind.DATA, FrameKind.DATA_FIN, FrameKind.RST], ids=lambda kind: kind.name)
def test_the_called_side_must_answer_before_it_speaks(kind: FrameKind) -> None:
    side = Side()
    side.open()
    with pytest.raises(ProtocolError, match="on stream 1, which is calling"):
        side.feed(encode(kind, 1, b"\1"))
