from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CloseReason, ProtocolError
from proxy.mux import frames
from proxy.mux.frames import HEADER, HEADER_SIZE, KEY_SHIFT, LENGTH_MASK, MAX_NAME, UNKNOWN_UID, FrameKind, Open, Via

names = st.text(min_size=1, max_size=40)
calls = st.builds(Open, names, st.integers(0, UNKNOWN_UID), st.text(max_size=40), st.none())
sources = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
ways = st.builds(Via, st.integers(0, 255), st.none() | sources)


@given(st.sampled_from(FrameKind), st.integers(0, frames.MAX_ID), st.binary(max_size=200))
def test_a_header_says_kind_id_and_length(kind: FrameKind, stream_id: int, payload: bytes) -> None:
    frame = frames.encode(kind, stream_id, payload)
    (word,) = HEADER.unpack_from(frame)
    assert frame[0] == kind
    assert frame[1:5] == stream_id.to_bytes(4, "big")
    assert frame[5:8] == len(payload).to_bytes(3, "big") == (word & LENGTH_MASK).to_bytes(3, "big")
    assert word >> KEY_SHIFT == kind << 32 | stream_id
    assert frame[HEADER_SIZE:] == payload


def test_the_key_of_plain_data_is_the_stream_id() -> None:
    """What the turn's single dictionary look-up rests on."""
    (word,) = HEADER.unpack_from(frames.encode(FrameKind.DATA, 7, b"x"))
    assert word >> KEY_SHIFT == 7
    assert all(HEADER.unpack(frames.encode(kind, 7))[0] >> KEY_SHIFT > frames.MAX_ID for kind in FrameKind if kind)


@given(calls)
def test_open_comes_back_as_it_was(call: Open) -> None:
    assert frames.decode_open_untrusted(frames.encode_open(call)) == call


@given(calls, st.data())
def test_a_cut_or_longer_open_is_an_error(call: Open, data: st.DataObject) -> None:
    whole = frames.encode_open(call)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for wrong in (cut, whole + b"xx"):
        with pytest.raises(ProtocolError, match="malformed OPEN"):
            frames.decode_open_untrusted(wrong)


@pytest.mark.failure("28")
@given(calls, ways)
def test_the_way_of_a_call_comes_back_as_it_was(call: Open, via: Via) -> None:
    whole = frames.encode_open(call._replace(via=via))
    assert frames.decode_open_untrusted(whole) == call._replace(via=via)
    plain = frames.encode_open(call)
    assert whole[: len(plain)] == plain
    assert len(whole) - len(plain) in (1, 7, 19)


@pytest.mark.failure("28")
def test_an_interface_stays_on_its_machine() -> None:
    call = Open("web", via=Via(0, ("fe80::1%eth0", 7)))
    assert frames.decode_open_untrusted(frames.encode_open(call)).via == Via(0, ("fe80::1", 7))


@given(st.binary(max_size=600))
def test_any_open_payload_is_a_call_or_a_protocol_error(payload: bytes) -> None:
    try:
        call = frames.decode_open_untrusted(payload)
    except ProtocolError as error:
        assert str(error) == f"malformed OPEN payload of {len(payload)} bytes"
    else:
        assert call.service
        assert frames.encode_open(call) == payload


@pytest.mark.parametrize(
    "call", [Open(""), Open("s" * (MAX_NAME + 1)), Open("é" * 128), Open("s", 0, "c" * (MAX_NAME + 1))]
)
def test_names_that_do_not_fit(call: Open) -> None:
    with pytest.raises(ValueError, match="255"):
        frames.encode_open(call)


def test_the_longest_open_fits_into_a_control_frame() -> None:
    call = Open("s" * MAX_NAME, UNKNOWN_UID, "c" * MAX_NAME, Via(255, ("2001:db8::1", 65535)))
    payload = frames.encode_open(call)
    assert len(payload) <= frames.MAX_CONTROL
    assert frames.decode_open_untrusted(payload) == call


@pytest.mark.parametrize("payload", [b"\0\0\0\0\2\xff\xfe\0", b"\0\0\0\0\1s\1\xff"], ids=["service", "caller"])
def test_names_are_utf_8(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed OPEN payload of 8 bytes"):
        frames.decode_open_untrusted(payload)


@pytest.mark.parametrize("reason", CloseReason)
def test_reasons_come_back_as_they_were(reason: CloseReason) -> None:
    assert frames.decode_reason_untrusted(frames.encode_reason(reason), "RST") is reason


@given(st.binary(max_size=3).filter(lambda payload: len(payload) != 1 or payload[0] > max(CloseReason)))
def test_any_other_reason_is_an_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="GOAWAY with unknown close reason"):
        frames.decode_reason_untrusted(payload, "GOAWAY")


@pytest.mark.parametrize(
    ("encode", "decode", "size"),
    [
        (frames.encode_u32, frames.decode_u32_untrusted, 4),
        (frames.encode_u64, frames.decode_u64_untrusted, 8),
    ],
    ids=["u32", "u64"],
)
@given(data=st.data())
def test_numbers(
    encode: Callable[[int], bytes], decode: Callable[[bytes, str], int], size: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, 256**size - 1))
    assert decode(encode(number), "PING") == number
    payload = data.draw(st.binary(max_size=12))
    if len(payload) != size:
        with pytest.raises(ProtocolError, match=f"PING payload has {len(payload)} bytes; {size} expected"):
            decode(payload, "PING")


@pytest.mark.failure("29")
def test_a_peer_is_told_only_reasons_that_it_knows() -> None:
    """An unknown one would end its link, with all its streams."""
    for reason in CloseReason:
        assert frames.known_to(frames.NEWEST_REASON, reason) is reason
        assert frames.known_to(frames.FIRST_REASONS, reason) <= frames.FIRST_REASONS
        assert frames.known_to(0, reason) <= frames.FIRST_REASONS, "whatever it says, it knows these"
    assert frames.known_to(frames.FIRST_REASONS, CloseReason.LOCAL_SHORTAGE) is CloseReason.OVERLOADED
    assert frames.known_to(frames.FIRST_REASONS, CloseReason.CONNECT_FAILED) is CloseReason.CONNECT_FAILED
