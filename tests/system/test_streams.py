"""What streams promise, through two real proxies: every byte, both ends, and nobody waits for somebody else."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from random import Random

import pytest

from proxy.demo.lab import Lab
from proxy.mux.extracredit import LARGEST, MOST_STREAMS
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, World
from tests.tools.servers import Echo, Listener
from tests.tools.sockets import abort, eventually, exchange, read_exactly, read_to_end

pytestmark = pytest.mark.netns

MEGABYTE = 1 << 20


@pytest.fixture(scope="module", params=["none", "mtls"])
def mute(lab: Lab, request: pytest.FixtureRequest) -> Iterator[World]:
    """Its services are up to the test. TLS changes nothing of what streams promise."""
    with World(lab, echo=False, mtls=request.param == "mtls") as world:
        yield world


@pytest.fixture
def echoing(mute: World) -> Iterator[World]:
    """The same with an echo server behind each service."""
    with ExitStack() as stack:
        for kind in KINDS:
            stack.enter_context(Echo(mute.deliver(kind), mute.server_socket(kind)))
        yield mute


class Pump(threading.Thread):
    """Sends random bytes and ends its direction.

    Attributes:
        error: what it got instead if it could not.
    """

    def __init__(self, sock: socket.socket, size: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._sock, self._size, self._random = sock, size, Random(seed)
        self._hash = hashlib.sha256()
        self.error: ConnectionError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._send()
        except ConnectionError as error:
            self.error = error

    def _send(self) -> None:
        left = self._size
        while left:
            piece = self._random.randbytes(min(left, self._random.randrange(1, 200_000)))
            self._sock.sendall(piece)
            self._hash.update(piece)
            left -= len(piece)
        self._sock.shutdown(socket.SHUT_WR)

    def digest(self) -> bytes:
        """Of all bytes sent, once they are."""
        self.join()
        return self._hash.digest()


def digest_to_end(sock: socket.socket) -> tuple[bytes, int]:
    sum_, size = hashlib.sha256(), 0
    while piece := sock.recv(1 << 18):
        sum_.update(piece)
        size += len(piece)
    return sum_.digest(), size


@pytest.mark.failure(5)
@pytest.mark.parametrize("kind", KINDS)
def test_bulk_both_ways_at_once_is_byte_exact(mute: World, kind: str) -> None:
    with Listener(mute.deliver(kind), mute.server_socket(kind)) as listener, mute.call(kind) as client:
        with listener.accept() as server:
            up, down = Pump(client, 24 * MEGABYTE, 1), Pump(server, 24 * MEGABYTE, 2)
            results: dict[str, tuple[bytes, int]] = {}
            reader = threading.Thread(target=lambda: results.update(server=digest_to_end(server)))
            reader.start()
            assert digest_to_end(client) == (down.digest(), 24 * MEGABYTE)
            reader.join()
            assert results["server"] == (up.digest(), 24 * MEGABYTE)
    mute.wait_until_idle()


@pytest.mark.failure(5)
def test_both_sides_write_without_reading_and_then_read(mute: World) -> None:
    """Full buffers in both directions of many streams: once somebody reads, everything arrives."""
    with Listener(mute.deliver("unix")) as listener, ExitStack() as stack:
        pairs = []
        for _ in range(20):
            client = stack.enter_context(mute.call("unix"))
            pairs.append((client, stack.enter_context(listener.accept())))
        ends = [end for pair in pairs for end in pair]
        pumps = [Pump(end, 2 * MEGABYTE, number) for number, end in enumerate(ends)]
        eventually(lambda: all(stream["credit"] == 0 for stream in mute.ask("a", "streams")), "all are stalled")
        eventually(lambda: all(stream["credit"] == 0 for stream in mute.ask("b", "streams")), "all are stalled")
        readers: list[threading.Thread] = []
        got: dict[int, bytes] = {}
        for number, end in enumerate(ends):
            readers.append(
                threading.Thread(target=lambda at=number, sock=end: got.update({at: digest_to_end(sock)[0]}))
            )
            readers[-1].start()
        for reader in readers:
            reader.join()
        for number, pump in enumerate(pumps):
            assert got[number ^ 1] == pump.digest()
    mute.wait_until_idle()


@pytest.mark.failure(4, 19, 20)
@pytest.mark.parametrize("kind", KINDS)
def test_slow_readers_stall_themselves_only(mute: World, kind: str) -> None:
    """The far end of some streams reads nothing: they come to a halt within their credit, all others talk on."""
    with Listener(mute.deliver(kind), mute.server_socket(kind)) as listener, ExitStack() as stack:
        stalled = [stack.enter_context(mute.call(kind)) for _ in range(8)]
        stuck = [stack.enter_context(listener.accept()) for _ in stalled]
        sent = [fill(client) for client in stalled]
        with mute.call(kind) as client, listener.accept() as server:
            for number in range(200):
                client.sendall(b"ping %3d" % number)
                assert read_exactly(server, 8) == b"ping %3d" % number
                server.sendall(b"pong %3d" % number)
                assert read_exactly(client, 8) == b"pong %3d" % number
        eventually(lambda: len(mute.ask("b", "streams")) == 8, "the stream that talked is over")
        links = len(mute.ask("b", "links"))
        held = [stream["buffered"] for stream in mute.ask("b", "streams")]
        assert 0 < max(held) <= LARGEST, "credit bounds what the proxy holds"
        # A service whose socket takes a lot before it stops has been fast.
        assert sum(each > 256 * 1024 for each in held) <= MOST_STREAMS * links, (
            "and only a few have more than the usual one"
        )
        for server, client, size in zip(stuck, stalled, sent, strict=True):
            client.shutdown(socket.SHUT_WR)
            server.settimeout(20)
            received = read_to_end(server)
            assert (len(received.received), received.reset) == (size, False)
    mute.wait_until_idle()


def fill(sock: socket.socket) -> int:
    """Send until nothing moves any more: the socket has taken nothing for a while, though it may take a little."""
    total = 0
    sock.settimeout(0.3)
    try:
        while True:
            total += sock.send(b"x" * 65536)
    except TimeoutError:
        sock.settimeout(20)
        return total


@pytest.mark.failure(4, 18)
def test_others_talk_on_while_a_bulk_stream_is_aborted(mute: World, lab: Lab) -> None:
    with Listener(mute.deliver("tcp"), lab.b.socket()) as listener, ExitStack() as stack:
        for number in range(5):
            client = mute.call("tcp")
            server = stack.enter_context(listener.accept())
            bulk = Pump(server, 100 * MEGABYTE, number)
            read_exactly(client, MEGABYTE)
            with mute.call("tcp") as other, listener.accept() as end:
                other.sendall(b"small")
                assert read_exactly(end, 5) == b"small"
                abort(client)
                other.sendall(b"small")
                assert read_exactly(end, 5) == b"small"
            bulk.join()
            assert isinstance(bulk.error, ConnectionResetError)
    mute.wait_until_idle()


@pytest.mark.failure(16)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_speaks_first_is_heard_before_the_caller_says_a_word(mute: World, kind: str) -> None:
    with Listener(mute.deliver(kind), mute.server_socket(kind)) as listener, mute.call(kind) as client:
        with listener.accept() as server:
            server.sendall(b"220 ready")
            assert read_exactly(client, 9) == b"220 ready"
            client.sendall(b"HELO")
            assert read_exactly(server, 4) == b"HELO"


@pytest.mark.failure(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["caller", "service"])
def test_each_direction_ends_by_itself(mute: World, kind: str, first: str) -> None:
    with Listener(mute.deliver(kind), mute.server_socket(kind)) as listener, mute.call(kind) as client:
        with listener.accept() as server:
            one, other = (client, server) if first == "caller" else (server, client)
            one.sendall(b"request")
            one.shutdown(socket.SHUT_WR)
            assert read_to_end(other) == (b"request", False)
            for number in range(50):
                other.sendall(b"answer %2d" % number)
                assert read_exactly(one, 9) == b"answer %2d" % number
            other.sendall(b"x" * 100_000)
            other.shutdown(socket.SHUT_WR)
            assert read_to_end(one) == (b"x" * 100_000, False)
    mute.wait_until_idle()


@pytest.mark.failure(2, 3)
@pytest.mark.parametrize("kind", KINDS)
def test_said_and_gone_before_the_service_took_the_call(mute: World, kind: str) -> None:
    """A caller that sends, ends and closes at once: the service gets all of it and a clean end."""
    with Listener(mute.deliver(kind), mute.server_socket(kind)) as listener:
        for size in (0, 1, 20_000, 150_000):
            client = mute.call(kind)
            client.sendall(b"x" * size)
            client.close()
            with listener.accept() as server:
                assert read_to_end(server) == (b"x" * size, False)
    mute.wait_until_idle()


@pytest.mark.failure(3)
@pytest.mark.parametrize("who", ["caller", "service"])
def test_a_reset_is_told_as_a_reset(mute: World, lab: Lab, who: str) -> None:
    with Listener(mute.deliver("tcp"), lab.b.socket()) as listener:
        with mute.call("tcp") as client, listener.accept() as server:
            client.sendall(b"hello")
            assert read_exactly(server, 5) == b"hello"
            one, other = (client, server) if who == "caller" else (server, client)
            one.sendall(b"half a mess")
            assert read_exactly(other, 11) == b"half a mess"
            abort(one)
            assert read_to_end(other) == (b"", True)
    mute.wait_until_idle()


@pytest.mark.failure(3)
def test_bytes_unread_at_close_are_an_abort_on_unix_sockets_too(mute: World) -> None:
    with Listener(mute.deliver("unix")) as listener:
        with mute.call("unix") as client, listener.accept() as server:
            server.sendall(b"never read")
            eventually(partial(_readable, client), "unread bytes")
            client.close()
            mute.a.wait_for("stream ended", reason="aborted", service="unix")
            mute.b.wait_for("stream ended", reason="aborted", service="unix")
            assert read_to_end(server).received == b""
    mute.wait_until_idle()


def _readable(sock: socket.socket) -> bool:
    return bool(sock.recv(1, socket.MSG_PEEK))


@pytest.mark.failure(18)
def test_streams_that_end_badly_disturb_nobody(echoing: World) -> None:
    with Callers(Caller(number, echoing.call(KINDS[number % 2])) for number in range(4)) as callers:
        for number in range(300):
            client = echoing.call(KINDS[number % 2])
            client.sendall(b"x" * (number * 50))
            if number % 3:
                client.recv(1)
            abort(client)
        callers.all_talk()
    assert callers.endings() == {"stopped"}
    echoing.wait_until_idle()
    assert echoing.links() <= 2


@pytest.mark.failure(20)
def test_messages_of_all_sizes_around_the_limits(echoing: World) -> None:
    """All sizes around the limits of frames and buffers, beside each other on the same links."""
    sizes = [1, 8, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 131_072]
    with ExitStack() as stack:
        for kind in KINDS:
            for size in sizes:
                exchange(stack.enter_context(echoing.call(kind)), Random(size).randbytes(size))
    echoing.wait_until_idle()
