"""Who ends a stream, and how, with which sockets at both ends: what the other end sees.

A clean end is a clean end, with every byte before it. An abort is a reset for TCP; a Unix socket's reader may see an
end instead, which is all that such a socket can say, but never more bytes than were sent.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import pytest

from proxy.demo.lab import Lab
from tests.system.talk import last_words
from tests.system.world import KINDS, World
from tests.tools.servers import Listener
from tests.tools.sockets import abort, eventually, read_exactly, read_to_end

pytestmark = [pytest.mark.netns, pytest.mark.failure(2, 3)]


@pytest.fixture(scope="module", params=[False, True], ids=["same sockets at both ends", "Unix here and TCP there"])
def world(request: pytest.FixtureRequest, lab: Lab) -> Iterator[World]:
    with World(lab, echo=False, crossed=request.param) as running:
        yield running


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[f"{kind} caller, the {who} ends" for kind in KINDS for who in ("caller", "service")])
def pair(request: pytest.FixtureRequest, world: World) -> Iterator[Pair]:
    """The socket that will end, and the other one; a word has gone both ways between them."""
    kind, _, who = request.param.partition(" caller, the ")
    with talking(world, kind, who.removesuffix(" ends")) as sockets:
        yield sockets


@pytest.fixture(params=["caller", "service"])
def tcp_pair(request: pytest.FixtureRequest, world: World) -> Iterator[Pair]:
    """The same, where the socket that will end is a TCP one: it can be reset with nothing unread."""
    who = request.param
    kind = "tcp" if who == "caller" else next(kind for kind in KINDS if world.deliver(kind).startswith("tcp:"))
    with talking(world, kind, who) as sockets:
        yield sockets


@contextmanager
def talking(world: World, kind: str, who: str) -> Iterator[Pair]:
    with Listener(world.deliver(kind), world.server_socket(kind)) as listener, world.call(kind) as client:
        client.sendall(b"hello")
        with listener.accept() as server:
            assert read_exactly(server, 5) == b"hello"
            server.sendall(b"welcome")
            assert read_exactly(client, 7) == b"welcome"
            yield (client, server) if who == "caller" else (server, client)
    world.wait_until_idle()


@pytest.mark.parametrize("size", [0, 1, 50_000])
def test_close(pair: Pair, size: int) -> None:
    one, other = pair
    one.sendall(b"x" * size)
    one.close()
    assert read_to_end(other) == (b"x" * size, False)


@pytest.mark.parametrize("size", [0, 1, 50_000])
def test_half_close_and_an_answer(pair: Pair, size: int) -> None:
    one, other = pair
    one.sendall(b"x" * size)
    one.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == (b"x" * size, False)
    other.sendall(b"y" * size)
    other.close()
    assert read_to_end(one) == (b"y" * size, False)


def test_half_close_both_ways_at_once(pair: Pair) -> None:
    for sock in pair:
        sock.sendall(b"last words")
    for sock in pair:
        sock.shutdown(socket.SHUT_WR)
    for sock in pair:
        assert read_to_end(sock) == (b"last words", False)


def test_close_with_bytes_unread(pair: Pair) -> None:
    one, other = pair
    other.sendall(b"never read")
    eventually(partial(_unread, one, 10), "unread bytes")
    one.close()
    _aborted(other)


@pytest.mark.failure("21a")
@pytest.mark.parametrize("size", [200, 1 << 20])
def test_last_words_to_an_end_that_is_still_writing(pair: Pair, size: int) -> None:
    one, other = pair
    last_words(one, other, Random(size).randbytes(size))


def test_reset_while_nothing_is_under_way(tcp_pair: Pair) -> None:
    one, other = tcp_pair
    abort(one)
    _aborted(other)


def test_reset_after_half_a_message(tcp_pair: Pair) -> None:
    one, other = tcp_pair
    one.sendall(b"half a mess")
    eventually(partial(_unread, other, 11), "it has arrived")
    abort(one)
    _aborted(other, b"half a mess")


def test_reset_in_the_middle_of_bulk(tcp_pair: Pair) -> None:
    """What the other end, which has not read, gets is the beginning of what was sent; TCP says that it is not all."""
    one, other = tcp_pair
    sent = b"".join(b"%07d\n" % number for number in range(1 << 19))
    one.settimeout(0.3)
    try:
        one.sendall(sent)
    except TimeoutError:
        pass
    abort(one)
    ending = read_to_end(other)
    assert sent.startswith(ending.received)
    assert ending.reset or other.family == socket.AF_UNIX


def test_reset_after_the_own_end(tcp_pair: Pair) -> None:
    one, other = tcp_pair
    one.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == (b"", False)
    abort(one)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            other.sendall(b"x")


def _unread(sock: socket.socket, size: int) -> bool:
    return len(sock.recv(size + 1, socket.MSG_PEEK)) == size


def _aborted(sock: socket.socket, begins: bytes = b"") -> None:
    ending = read_to_end(sock)
    assert begins.startswith(ending.received)
    assert ending.reset or sock.family == socket.AF_UNIX
