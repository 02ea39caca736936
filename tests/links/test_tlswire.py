"""Two wires on a TCP connection: what one takes the other gets, as over the socket itself."""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.certificates import CertificateAuthority
from proxy.links.tlswire import ENCRYPTED_AT_ONCE, LEAST_ROOM, RECORD, TlsWire
from tests.links.wire import tcp_pair
from tests.tools.tls import of_host

OURS = CertificateAuthority()
HERE, THERE = of_host(OURS, "host-a"), of_host(OURS, "host-b")
IN_BUFFER = 128 * 1024


@contextmanager
def wires(*, send_buffer: int | None = None) -> Iterator[tuple[TlsWire, TlsWire]]:
    """Both ends past their handshake."""
    one, other = TlsWire(HERE.dialling, server_side=False), TlsWire(THERE.accepting, server_side=True)
    pair = [(one, other), (other, one)]
    for _ in range(4):
        for near, far in pair:
            try:
                near.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            far.incoming.write(near.outgoing.read())
    sockets = tcp_pair()
    with sockets[0], sockets[1]:
        one.sock, other.sock = sockets
        if send_buffer is not None:
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        yield one, other


def readable(wire: TlsWire) -> bool:
    return bool(select.select([wire.sock], [], [], 0)[0])


def receive(wire: TlsWire, room: int = IN_BUFFER) -> bytes:
    """What has arrived; nothing if nothing has."""
    buffer = bytearray(room)
    try:
        return bytes(buffer[: wire.recv_into(memoryview(buffer))])
    except BlockingIOError:
        return b""


def carry(near: TlsWire, far: TlsWire, data: bytes, room: int = IN_BUFFER) -> bytes:
    """Send all of it as the link does, reading at the other end whenever the socket is full; what arrived."""
    arrived, sent, view = bytearray(), 0, memoryview(data)
    while len(arrived) < len(data):
        try:
            if sent < len(data):
                sent += near.send(view[sent:])
        except BlockingIOError:
            pass
        assert len(arrived) <= sent + ENCRYPTED_AT_ONCE
        arrived += receive(far, room)
    assert sent == len(data)
    return bytes(arrived)


@pytest.mark.parametrize(
    "size", [1, 64, RECORD - 1, RECORD, RECORD + 1, ENCRYPTED_AT_ONCE, ENCRYPTED_AT_ONCE + 1, 1_000_003]
)
@pytest.mark.parametrize("room", [LEAST_ROOM, IN_BUFFER])
def test_bytes_arrive_as_they_were_sent(size: int, room: int) -> None:
    data = Random(size).randbytes(size)
    with wires() as (one, other):
        assert carry(one, other, data, room) == data
        assert carry(other, one, data, room) == data


@given(st.lists(st.integers(1, 100_000), max_size=6), st.integers(30_000, 100_000))
def test_any_sizes_through_any_buffer(sizes: list[int], send_buffer: int) -> None:
    with wires(send_buffer=send_buffer) as (one, other):
        for size in sizes:
            data = Random(size).randbytes(size)
            assert carry(one, other, data) == data


def test_many_small_records_are_read_at_once_and_none_stays_behind() -> None:
    """Rule 1: when the socket has nothing left, so has OpenSSL."""
    with wires() as (one, other):
        for number in range(500):
            assert one.send(memoryview(b"%-60d" % number)) == 60
        reads: list[bytes] = []
        while readable(other):
            reads.append(receive(other))
            assert other.incoming.pending == 0
        assert b"".join(reads) == b"".join(b"%-60d" % number for number in range(500))
        assert len(reads) < 10


def test_what_does_not_fit_stays_in_the_socket() -> None:
    with wires() as (one, other):
        carried = memoryview(bytes(3 * RECORD))
        assert one.send(carried) == len(carried)
        arrived = 0
        while arrived < len(carried):
            assert readable(other), "the epoll would never tell of the rest"
            arrived += len(receive(other, LEAST_ROOM))
        assert not readable(other)


def test_only_whole_records_count_as_sent() -> None:
    """Rule 2: what the peer could have acknowledged is never more than what `send` has said."""
    data = Random(1).randbytes(1_000_000)
    with wires(send_buffer=30_000) as (one, other):
        sent = arrived = 0
        while sent < len(data):
            try:
                taken = one.send(memoryview(data)[sent:])
                assert taken > 0
                assert taken % RECORD == 0 or sent + taken == len(data)
                sent += taken
            except BlockingIOError:
                pass
            got = receive(other)
            assert data[arrived : arrived + len(got)] == got
            arrived += len(got)
            assert arrived <= sent


def test_a_full_socket_takes_nothing_until_it_has_room_again() -> None:
    data = memoryview(Random(2).randbytes(16_000_000))
    with wires() as (one, other):
        sent = one.send(data)
        assert 0 < sent < len(data)
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                one.send(data[sent:])
        arrived = bytearray()
        while len(arrived) < sent:
            arrived += receive(other)
        assert arrived == data[:sent]
        more = one.send(data[sent:])
        while len(arrived) < sent + more:
            arrived += receive(other)
        assert arrived == data[: sent + more]


def test_half_a_record_is_no_message() -> None:
    with wires() as (one, other):
        assert one.sock is not None
        one.tls.write(b"x" * 100)
        record = one.outgoing.read()
        one.sock.send(record[:50])
        with pytest.raises(BlockingIOError):
            other.recv_into(memoryview(bytearray(IN_BUFFER)))
        one.sock.send(record[50:])
        assert receive(other) == b"x" * 100


@pytest.mark.failure(3)
def test_an_end_without_close_notify_is_an_end_of_the_link() -> None:
    """GOAWAY says why a link ends; an end without it is a lost link, whoever made it (a truncation, for one)."""
    with wires() as (one, other):
        assert one.sock is not None
        one.sock.shutdown(socket.SHUT_WR)
        assert other.recv_into(memoryview(bytearray(IN_BUFFER))) == 0


def test_close_notify_is_an_end_too() -> None:
    with wires() as (one, other):
        assert one.sock is not None
        one.tls.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            one.tls.unwrap()
        one.sock.send(one.outgoing.read())
        assert receive(other) == b"last"
        one.sock.close()
        assert other.recv_into(memoryview(bytearray(IN_BUFFER))) == 0


@pytest.mark.failure(18)
def test_bytes_that_are_not_the_peers_lose_the_link() -> None:
    for where in (0, 3, 20, 120):
        with wires() as (one, other):
            assert one.sock is not None
            one.tls.write(b"x" * 100)
            record = bytearray(one.outgoing.read())
            record[where] ^= 1
            one.sock.send(record + bytes(20_000))
            with pytest.raises(OSError) as caught:
                while True:
                    try:
                        other.recv_into(memoryview(bytearray(IN_BUFFER)))
                    except BlockingIOError:
                        assert readable(other)
            assert caught.value.errno == errno.EPROTO
            assert str(caught.value.strerror).startswith("TLS: ")


def test_a_reset_is_the_sockets_own_error() -> None:
    with wires() as (one, other):
        assert one.sock is not None
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.sock.close()
        with pytest.raises(ConnectionResetError):
            other.recv_into(memoryview(bytearray(IN_BUFFER)))
        with pytest.raises(BrokenPipeError):
            other.send(memoryview(b"x"))


class Flaky:
    """A socket that breaks after so many sends."""

    def __init__(self, sock: socket.socket, sends: int) -> None:
        self._sock, self._sends = sock, sends

    def send(self, data: memoryview) -> int:
        if not self._sends:
            raise BrokenPipeError(errno.EPIPE, "broken")
        self._sends -= 1
        return self._sock.send(data)


@pytest.mark.failure(3, 7)
def test_what_went_out_before_the_connection_broke_counts_as_sent() -> None:
    """The peer may have received it, and will say so when its session goes on."""
    with wires() as (one, other):
        assert one.sock is not None
        sock = one.sock
        one.sock = Flaky(sock, 1)  # type: ignore[assignment]
        assert one.send(memoryview(bytes(3 * ENCRYPTED_AT_ONCE))) == ENCRYPTED_AT_ONCE
        with pytest.raises(BrokenPipeError):
            one.send(memoryview(bytes(2 * ENCRYPTED_AT_ONCE)))
        one.sock = sock
        assert receive(other) == bytes(ENCRYPTED_AT_ONCE)
