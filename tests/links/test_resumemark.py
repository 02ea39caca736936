from __future__ import annotations

import ssl
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason
from proxy.links.carry import new_id
from proxy.links.handshake import Hello, encode_hello, encode_refusal, resuming
from proxy.links.resumemark import LOOK, SUFFIX, is_instance, meant_untrusted, server_name
from proxy.links.tlswire import TlsWire
from proxy.mux.frames import FrameKind, encode
from tests.links.wire import hello
from tests.tools.tls import credentials

pytestmark = pytest.mark.failure("24", 18)

PROCESS = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    return credentials(CertificateAuthority(), "host-a").dialling


def first_flight(context: ssl.SSLContext, name: str | None) -> bytes:
    """The first bytes of a TLS dialler."""
    wire = TlsWire(context, server_side=False, name=name)
    with pytest.raises(ssl.SSLWantReadError):
        wire.tls.do_handshake()
    return wire.outgoing.read()


def refragmented(flight: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes."""
    body = flight[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(flight[:3] + struct.pack(">H", len(piece)) + piece for piece in pieces)


def says(hello: Hello, process: str = PROCESS) -> bytes:
    return encode_hello(resuming(hello, 0, process))


def test_what_this_program_names_its_processes_is_an_instance() -> None:
    assert is_instance(new_id())
    assert server_name(PROCESS) == PROCESS + SUFFIX
    for other in ("", "x" * 32, PROCESS.upper(), PROCESS + "0", PROCESS[1:], PROCESS + "\n", "é" * 32, msgspec.UNSET):
        assert server_name(other) is None


def test_a_hello() -> None:
    assert meant_untrusted(says(hello()) + b"whatever comes behind it") == PROCESS
    assert meant_untrusted(encode_hello(hello())) == ""
    assert meant_untrusted(encode_hello(resuming(hello(), 5))) == "", "of an earlier version"
    assert meant_untrusted(says(hello(), "somebody")) == ""
    assert meant_untrusted(encode_hello(msgspec.structs.replace(hello(), process=PROCESS))) == "", "it resumes nothing"


def test_a_client_hello(context: ssl.SSLContext) -> None:
    marked = first_flight(context, server_name(PROCESS))
    assert meant_untrusted(marked) == PROCESS
    assert meant_untrusted(first_flight(context, None)) == ""
    assert meant_untrusted(first_flight(context, "www.example.org")) == ""
    assert meant_untrusted(first_flight(context, "www" + SUFFIX)) == ""


def test_no_name_and_no_address_is_in_it_but_the_mark(context: ssl.SSLContext) -> None:
    """It is sent in the clear."""
    assert b"host-" not in first_flight(context, server_name(PROCESS))


@pytest.mark.parametrize("size", [1, 3, 100, 16384])
def test_over_several_records(context: ssl.SSLContext, size: int) -> None:
    flight = refragmented(first_flight(context, server_name(PROCESS)), size)
    assert meant_untrusted(flight) == PROCESS
    assert meant_untrusted(flight + b"\x17 other records") == PROCESS


@pytest.mark.parametrize("tls", [True, False])
def test_byte_by_byte(context: ssl.SSLContext, tls: bool) -> None:
    """More are asked for until it can be seen, and no byte later."""
    whole = first_flight(context, server_name(PROCESS)) if tls else says(hello())
    told = [meant_untrusted(whole[:length]) for length in range(len(whole) + 1)]
    assert told == [None] * len(whole) + [PROCESS]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        b"\x16\x03\x01\x00\x02\x01\x00\x17\x03\x03\x00\x01\x00",
        b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26" + bytes(38),
        encode_refusal(CloseReason.WRONG_HOST),
        encode(FrameKind.HELLO, 0, b"HSTL\x00\x01{"),
        encode(FrameKind.HELLO, 0, b"HSTL\x00\x09{}"),
    ],
)
def test_what_means_nobody(data: bytes) -> None:
    assert meant_untrusted(data) == ""


def test_no_more_than_so_much_is_waited_for() -> None:
    endless = b"\x16\x03\x01\x40\x00\x01\x00\x20\x10" + bytes(LOOK)
    assert meant_untrusted(endless[: LOOK - 1]) is None
    assert meant_untrusted(endless[:LOOK]) == ""


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes(data: bytes, cut: int) -> None:
    for first in (b"", b"\x16", b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb"):
        said = first + data
        whole = meant_untrusted(said)
        assert whole is None or whole == "" or is_instance(whole)
        assert meant_untrusted(said[:cut]) in (None, whole), "a cut changes nothing"


@given(st.data())
def test_a_client_hello_with_bytes_changed(context: ssl.SSLContext, data: st.DataObject) -> None:
    flight = bytearray(first_flight(context, server_name(PROCESS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(flight)))
        flight[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    meant = meant_untrusted(bytes(flight))
    assert not meant or is_instance(meant)
