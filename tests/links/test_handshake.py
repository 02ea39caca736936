from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CloseReason, HandshakeError
from proxy.links.handshake import (
    MIN_STREAM_CREDIT,
    Hello,
    HelloReader,
    check_names,
    encode_hello,
    encode_refusal,
    resuming,
    without,
)
from proxy.mux import frames
from proxy.mux.frames import FrameKind, encode
from proxy.mux.session import MAX_CREDIT, SessionSettings
from proxy.pool.sessions import MOST_GONE

KEY = "0" * 32
HELLO = Hello(
    host="host-a", to="host-b", instance="i", session="s", stream_credit=262144, max_streams=65535, reasons=21, via=True
)


def payload(version: int = 1, **fields: Any) -> bytes:
    """Of a HELLO, with fields changed, or left out if None."""
    told = {"host": "a", "to": "b", "instance": "i", "session": "s", "stream_credit": 65536, "max_streams": 9} | fields
    text = json.dumps({name: value for name, value in told.items() if value is not None})
    return b"HSTL" + version.to_bytes(2, "big") + text.encode()


def refused(data: bytes) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        HelloReader().feed_untrusted(data)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_hello_comes_back_as_it_was() -> None:
    reader = HelloReader()
    assert reader.feed_untrusted(encode_hello(HELLO) + b"and the first frames") == HELLO
    assert reader.leftover == b"and the first frames"
    assert HELLO.settings == SessionSettings(stream_credit=262144, max_streams=65535, reasons=21, via=True)


@pytest.mark.failure("28", "29")
def test_an_older_version_says_nothing_of_what_it_does_not_know() -> None:
    hello = HelloReader().feed_untrusted(encode(FrameKind.HELLO, 0, payload()))
    assert hello is not None
    assert (hello.settings.reasons, hello.settings.via) == (19, False)


def test_sessions_that_it_does_not_have() -> None:
    told = without(HELLO, {"one": True, "two": False, "three": True})
    assert (told.gone, told.unheard) == (("one", "three"), ("two",))
    assert HelloReader().feed_untrusted(encode_hello(told)) == told
    assert without(HELLO, {}) == HELLO
    assert b"unheard" not in encode_hello(HELLO)


def test_as_many_as_are_kept_fit() -> None:
    long = Hello(host="h" * 253, to="t" * 253, instance=KEY, session=KEY, stream_credit=1 << 30, max_streams=65535)
    told = without(resuming(long, 1 << 62), {f"{number:032x}": bool(number % 2) for number in range(MOST_GONE + 1)})
    assert HelloReader().feed_untrusted(encode_hello(told)) == told


def test_byte_by_byte() -> None:
    reader, whole = HelloReader(), encode_hello(HELLO)
    assert reader.feed_untrusted(b"") is None
    answers = [reader.feed_untrusted(whole[at : at + 1]) for at in range(len(whole))]
    assert answers == [None] * (len(whole) - 1) + [HELLO]
    assert reader.leftover == b""


@given(st.text(max_size=30), st.integers(0, 2**63), st.data())
def test_any_names_and_any_cut(name: str, received: int, data: st.DataObject) -> None:
    hello = Hello(host=name, to=name, instance="", session=name, stream_credit=65536, max_streams=1)
    hello = resuming(hello, received) if received else hello
    whole = encode_hello(hello)
    cut = data.draw(st.integers(0, len(whole)))
    reader = HelloReader()
    assert (reader.feed_untrusted(whole[:cut]) or reader.feed_untrusted(whole[cut:])) == hello


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda data: encode(FrameKind.HELLO, 0, data))
    | st.binary(max_size=300).map(lambda data: encode(FrameKind.HELLO, 0, b"HSTL\0\1" + data))
    | st.binary(max_size=2).map(lambda data: encode(FrameKind.GOAWAY, 0, data))
)
def test_any_bytes_are_a_hello_or_a_handshake_error(data: bytes) -> None:
    try:
        HelloReader().feed_untrusted(data)
    except HandshakeError as error:
        assert "\n" not in str(error)


def test_a_later_version_may_add_fields() -> None:
    hello = HelloReader().feed_untrusted(encode(FrameKind.HELLO, 0, payload(colour="blue")))
    assert hello is not None
    assert (hello.received, hello.resumes) == (0, False)


def test_a_session_goes_on() -> None:
    assert HelloReader().feed_untrusted(encode_hello(resuming(HELLO, 12345))) == resuming(HELLO, 12345)
    hello = HelloReader().feed_untrusted(encode(FrameKind.HELLO, 0, payload(received=12345, resumes=True)))
    assert hello is not None
    assert (hello.received, hello.resumes) == (12345, True)


@pytest.mark.parametrize("received", [-1, 5])
def test_what_a_new_session_cannot_have_received(received: int) -> None:
    with pytest.raises(HandshakeError, match=f"HELLO with received {received}, resumes false"):
        HelloReader().feed_untrusted(encode(FrameKind.HELLO, 0, payload(received=received)))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (bytes.fromhex("16030100"), "the peer speaks TLS, this host has links.security: none"),
        (b"GET / HTTP/1.1\r\n\r\n", "the peer does not speak Hostlane"),
        (b"\0", "the peer does not speak Hostlane"),
        (encode(FrameKind.HELLO, 0, bytes(4097))[:8], "the peer does not speak Hostlane"),
        (encode(FrameKind.HELLO, 0, b"HSTK\0\1{}"), "the peer does not speak Hostlane"),
        (encode(FrameKind.HELLO, 0, b"HSTL\0"), "the peer does not speak Hostlane"),
        (encode(FrameKind.HELLO, 0, payload(2)), "the peer speaks version 2 of the protocol, this host version 1"),
        (encode(FrameKind.GOAWAY, 0, b"\xc8"), "GOAWAY with unknown close reason c8"),
    ],
    ids=["tls", "http", "data", "too long", "magic", "short", "version", "goaway"],
)
def test_whoever_does_not_speak_it_is_told_apart(data: bytes, complaint: str) -> None:
    error = refused(data)
    assert str(error) == complaint
    assert error.reason is CloseReason.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "fields",
    [
        {"host": None},
        {"to": 5},
        {"gone": 5},
        {"gone": [5]},
        {"unheard": "s"},
        {"unheard": [5]},
        {"max_streams": "9"},
        {"stream_credit": 1.5},
        {"received": None, "session": None},
    ],
    ids=str,
)
def test_fields_that_are_missing_or_wrong(fields: dict[str, Any]) -> None:
    assert str(refused(encode(FrameKind.HELLO, 0, payload(**fields)))).startswith("malformed HELLO: ")


@pytest.mark.failure(18)
def test_fields_of_any_depth() -> None:
    """The JSON reader recurses: it would be an exception that nobody who dials expects."""
    deep = b'{"colour":' + b"[" * 2000 + b"]" * 2000 + b"}"
    assert str(refused(encode(FrameKind.HELLO, 0, b"HSTL\0\1" + deep))).startswith("malformed HELLO: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_credit": MIN_STREAM_CREDIT - 1},
        {"stream_credit": MAX_CREDIT + 1},
        {"max_streams": 0},
        {"max_streams": 2**31},
    ],
    ids=str,
)
def test_limits_that_the_protocol_cannot_keep(fields: dict[str, Any]) -> None:
    assert str(refused(encode(FrameKind.HELLO, 0, payload(**fields)))).startswith("HELLO with stream_credit ")


@pytest.mark.parametrize("reason", CloseReason)
def test_a_refusal_gives_its_reason(reason: CloseReason) -> None:
    error = refused(encode_refusal(reason))
    assert error.reason is reason
    assert str(error) == f"the peer refused: {reason.label}"


def test_a_hello_fits_into_a_control_frame_whatever_the_names() -> None:
    name, number = "h" * 64, "f" * 32
    hello = Hello(
        host=name, to=name, instance=number, session=number, received=2**63, stream_credit=2**31, max_streams=1
    )
    assert len(encode_hello(hello)) < frames.MAX_CONTROL // 4


@pytest.mark.failure(11)
def test_both_hosts_must_mean_each_other() -> None:
    check_names(HELLO, own="host-b", peer=None)
    check_names(HELLO, own="host-b", peer="host-a")
    for own, peer, complaint in (
        ("host-c", None, "host 'host-a' wants to reach 'host-b', this is 'host-c'"),
        ("host-b", "host-z", "host 'host-a' answered instead of 'host-z'"),
    ):
        with pytest.raises(HandshakeError) as caught:
            check_names(HELLO, own=own, peer=peer)
        assert str(caught.value) == complaint
        assert caught.value.reason is CloseReason.WRONG_HOST
