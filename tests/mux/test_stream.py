from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CloseReason, ProtocolError
from proxy.mux.stream import MAY_RECEIVE, MAY_SEND, TABLE, StreamEvent, StreamState, bits
from tests.mux.pair import Pair, Side, Talk

ENDS_OURS = {
    StreamEvent.SEND_FIN,
    StreamEvent.SEND_RST,
    StreamEvent.SEND_REFUSE,
    StreamEvent.RECV_RST,
    StreamEvent.RECV_REFUSE,
}
ENDS_THEIRS = {
    StreamEvent.RECV_FIN,
    StreamEvent.SEND_RST,
    StreamEvent.SEND_REFUSE,
    StreamEvent.RECV_RST,
    StreamEvent.RECV_REFUSE,
}
MIRROR = {
    StreamEvent.SEND_OPENED: StreamEvent.RECV_OPENED,
    StreamEvent.SEND_REFUSE: StreamEvent.RECV_REFUSE,
    StreamEvent.SEND_FIN: StreamEvent.RECV_FIN,
    StreamEvent.SEND_RST: StreamEvent.RECV_RST,
}


def walk(start: StreamState, most: int) -> list[tuple[tuple[StreamEvent, ...], StreamState]]:
    """Every sequence of events from `start` that the table allows, up to `most` long, DATA left out."""
    found: list[tuple[tuple[StreamEvent, ...], StreamState]] = [((), start)]
    for events, state in found:
        if len(events) < most:
            found += [
                ((*events, event), to) for event, to in TABLE[state].items() if event is not StreamEvent.RECV_DATA
            ]
    return found


WALKS = walk(StreamState.CALLING, 6) + walk(StreamState.CALLED, 6)


def test_every_state_has_a_row_and_is_reached() -> None:
    assert set(TABLE) == set(StreamState)
    assert {state for _, state in WALKS} == set(StreamState)


def test_closed_is_the_end_and_the_only_one() -> None:
    assert {state for state, row in TABLE.items() if not row} == {StreamState.CLOSED}


@pytest.mark.failure(2, 3)
def test_each_direction_ends_exactly_once_before_a_stream_is_closed() -> None:
    for events, state in WALKS:
        ours = [event for event in events if event in ENDS_OURS]
        theirs = [event for event in events if event in ENDS_THEIRS]
        fins = [event for event in events if event in (StreamEvent.SEND_FIN, StreamEvent.RECV_FIN)]
        assert len(fins) == len(set(fins))
        assert (state is StreamState.CLOSED) == (bool(ours) and bool(theirs))


@pytest.mark.failure(2)
def test_a_half_close_keeps_the_other_direction() -> None:
    assert bits(StreamState.FIN_RECEIVED, StreamState.CALLING, StreamState.OPEN) == MAY_SEND
    assert bits(StreamState.FIN_SENT, StreamState.CALLED, StreamState.OPEN) == MAY_RECEIVE


def test_an_answer_comes_exactly_once_and_refusing_comes_first() -> None:
    answers = {StreamEvent.SEND_OPENED, StreamEvent.SEND_REFUSE, StreamEvent.RECV_OPENED, StreamEvent.RECV_REFUSE}
    for events, state in WALKS:
        given_ = [event for event in events if event in answers]
        assert len(given_) <= 1
        if state in (StreamState.OPEN, StreamState.FIN_SENT, StreamState.FIN_RECEIVED):
            assert given_ in ([StreamEvent.SEND_OPENED], [StreamEvent.RECV_OPENED])


def test_data_never_changes_the_state() -> None:
    assert all(row.get(StreamEvent.RECV_DATA, state) is state for state, row in TABLE.items())


@pytest.mark.parametrize("state", [state for state in StreamState if state is not StreamState.CLOSED])
def test_we_can_always_end_it(state: StreamState) -> None:
    assert TABLE[state].keys() & {StreamEvent.SEND_RST, StreamEvent.SEND_REFUSE}


def test_what_one_side_may_send_the_other_may_receive() -> None:
    """Walk both sides together; frames arrive at once. (In flight: test_properties.py.)"""
    seen, todo = set(), [(StreamState.CALLING, StreamState.CALLED)]
    while todo:
        pair = todo.pop()
        if pair in seen:
            continue
        seen.add(pair)
        for mine, theirs in (pair, pair[::-1]):
            for event, after in TABLE[mine].items():
                if event in MIRROR:
                    todo.append((after, TABLE[theirs][MIRROR[event]]))
            if MAY_SEND >> mine & 1:
                assert MAY_RECEIVE >> theirs & 1
    ended = {pair for pair in seen if StreamState.CLOSED in pair}
    assert ended == {(StreamState.CLOSED, StreamState.CLOSED)}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(StreamState, StreamEvent)), ids=lambda value: value.name
)
def test_steps_outside_the_table(state: StreamState, event: StreamEvent) -> None:
    stream = Talk(Side().session, 5, state, 10, 10)
    if event in TABLE[state]:
        stream.advance_untrusted(event)
        assert stream.state == TABLE[state][event]
        return
    with pytest.raises(ProtocolError, match=f"{event.name[5:]} on stream 5, which is {state.label}"):
        stream.advance_untrusted(event)
    with pytest.raises(KeyError):
        stream.advance(event)
    assert stream.state == state


def test_labels_are_what_people_read() -> None:
    assert [state.label for state in (StreamState.CALLING, StreamState.FIN_RECEIVED)] == ["calling", "fin_received"]


@given(st.lists(st.integers(1, 70_000), max_size=12))
def test_bytes_are_counted_by_credit_alone(sizes: list[int]) -> None:
    pair = Pair()
    mine, theirs = pair.open()
    total = 0
    for size in sizes:
        rest = size
        while rest:
            rest -= pair.a.send(mine, bytes(min(rest, 65536)))
            pair.cross()
            pair.b.read(theirs)
            pair.cross()
        total += size
        assert (mine.bytes_sent, theirs.bytes_received) == (total, total)
    assert (theirs.bytes_sent, mine.bytes_received) == (0, 0)


def test_early_bytes_are_counted_too() -> None:
    pair = Pair()
    mine = pair.a.open()
    pair.a.send(mine, b"early")
    pair.cross()
    pair.b.session.refuse(pair.b.calls[0][0], CloseReason.CONNECT_FAILED)
    pair.cross()
    assert mine.bytes_sent == 5
