from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from control.api.identity import host_uri
from control.base.reading.addresses import TcpAddress
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason, HandshakeError, StartError
from proxy.links import accept, handshakelimiter
from proxy.links.accept import HANDSHAKES, LINES_AT_ONCE
from proxy.links.carry import HandshakeResult, dial
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello, encode_hello, resuming
from proxy.links.passing import EarlierProcesses, NoEarlierProcess, PassedLinks
from proxy.mux.frames import FrameKind, encode
from tests.links.wire import ANYWHERE, hello, opened
from tests.tools.sockets import PATIENCE, fds_since, open_fds
from tests.tools.tls import MESH, credentials

PROBED = "connection to links.listen without a byte"


@dataclass
class Peer:
    """The pool of host-a at host-b, as far as accepting goes."""

    places: int = 100
    links: int = 0
    most: int = 0
    crash: Exception | None = None
    seen: list[HandshakeResult] = field(default_factory=list)
    gone: dict[str, bool] = field(default_factory=dict)

    def absent(self, hello: Hello) -> dict[str, bool]:
        return self.gone

    def resumes(self, hello: Hello) -> int | None:
        return None

    def refuses(self) -> CloseReason | None:
        return None if self.links < self.places else CloseReason.DUPLICATE


async def attend(peer: accept.AcceptingPool, handshake: HandshakeResult) -> None:
    assert isinstance(peer, Peer)
    with handshake.sock:
        peer.links += 1
        peer.most = max(peer.most, peer.links)
        peer.seen.append(handshake)
        if peer.crash:
            peer.links -= 1
            raise peer.crash
        try:
            await trio.lowlevel.wait_readable(handshake.sock)
        finally:
            peer.links -= 1


@asynccontextmanager
async def serving(
    peer: Peer,
    patience: float = 30,
    credentials: Credentials | None = None,
    expected: Callable[[str], bool] = lambda source: False,
    earlier: EarlierProcesses = NoEarlierProcess(),  # noqa: B008 - it cannot change
    passed: PassedLinks | None = None,
) -> AsyncIterator[TcpAddress]:
    """host-b accepts links, from host-a only."""
    listeners = opened(TcpAddress("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await accept.serve(
                listeners,
                own="host-b",
                patience=lambda: patience,
                find={"host-a": peer}.get,
                expected=expected,
                hello=lambda name, session: hello("host-b", name, session),
                attend=attend,
                credentials=lambda: credentials,
                earlier=earlier,
                passed=passed,
                task_status=task_status,
            )

        await nursery.start(serve)
        yield TcpAddress("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def refused(address: TcpAddress, host: str = "host-a", to: str = "host-b") -> CloseReason:
    """Dial as `host`; the reason for which it was refused."""
    with pytest.raises(HandshakeError) as caught:
        await dial(address, device=ANYWHERE, hello=hello(host, to))
    return caught.value.reason


async def test_a_link_is_accepted_and_attended() -> None:
    peer = Peer()
    async with serving(peer) as address:
        handshake = await dial(address, device=ANYWHERE, hello=hello())
        with handshake.sock:
            assert handshake.hello.host == "host-b"
            assert peer.seen[0].hello == hello()
            assert peer.links == 1


@pytest.mark.failure(11)
@pytest.mark.parametrize(("host", "to"), [("stranger", "host-b"), ("host-a", "host-c")])
async def test_strangers_and_links_meant_for_others(host: str, to: str) -> None:
    peer = Peer()
    async with serving(peer) as address:
        with capture_logs() as logs:
            assert await refused(address, host, to) is CloseReason.WRONG_HOST
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("link refused", "wrong_host")]
    assert not peer.seen


async def test_no_link_beyond_those_that_the_pool_admits() -> None:
    peer = Peer(places=1)
    async with serving(peer) as address:
        with (await dial(address, device=ANYWHERE, hello=hello())).sock:
            assert await refused(address) is CloseReason.DUPLICATE
        while peer.links:
            await trio.lowlevel.checkpoint()
        (await dial(address, device=ANYWHERE, hello=hello())).sock.close()


@pytest.mark.failure(9)
async def test_many_handshakes_at_once_do_not_share_the_last_place() -> None:
    peer, made, duplicates = Peer(places=2), [], 0

    async def one() -> None:
        nonlocal duplicates
        try:
            made.append((await dial(address, device=ANYWHERE, hello=hello())).sock)
        except HandshakeError as error:
            assert error.reason is CloseReason.DUPLICATE
            duplicates += 1

    async with serving(peer) as address:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(one)
        assert (len(made), duplicates, peer.most) == (2, 28, 2)
        for sock in made:
            sock.close()


@pytest.mark.failure(18)
@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"", encode(FrameKind.PING, 0, bytes(8)), encode_hello(hello())[:9]],
)
async def test_whatever_one_dialler_says_the_next_is_served(data: bytes) -> None:
    peer = Peer()
    async with serving(peer) as address:
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(data)
        (await dial(address, device=ANYWHERE, hello=hello())).sock.close()


@pytest.mark.failure(18)
@pytest.mark.parametrize("crash", [ValueError("a bug"), OSError("the machine"), HandshakeError("too late")], ids=repr)
async def test_a_bug_in_one_link_does_not_end_the_server(crash: Exception) -> None:
    peer = Peer(crash=crash)
    async with serving(peer) as address:
        with (await dial(address, device=ANYWHERE, hello=hello())).sock:
            pass
        peer.crash = None
        (await dial(address, device=ANYWHERE, hello=hello())).sock.close()
    assert len(peer.seen) == 2


@pytest.mark.failure(1)
async def test_a_dialler_that_says_nothing_is_dropped_in_time() -> None:
    async with serving(Peer(), patience=0.01) as address:
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            assert await stream.receive_some() == b""


def close(sock: socket.socket) -> None:
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock: socket.socket) -> None:
    """The other half is closed when the answer, an end, has come."""
    sock.shutdown(socket.SHUT_WR)


CA = CertificateAuthority()


@pytest.mark.failure("34")
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("leave", [close, reset, half_close])
async def test_who_only_looks_whether_the_port_is_open_is_no_warning(
    leave: Callable[[socket.socket], None], secured: bool
) -> None:
    own = credentials(CA, host_uri(MESH, "host-b")) if secured else None
    async with serving(Peer(), credentials=own) as address:
        before = open_fds()
        with capture_logs() as logs:
            probes = [socket.create_connection((address.host, address.port)) for _ in range(10)]
            for probe in probes:
                leave(probe)
            while len(logs) < len(probes):
                await trio.lowlevel.checkpoint()
            for probe in probes:
                probe.close()
            while open_fds() > before:
                await trio.lowlevel.checkpoint()
    said = {(entry["log_level"], entry["event"], entry["remote"]) for entry in logs}
    assert len(logs) == len(probes)
    assert said <= {("debug", PROBED, "127.0.0.1"), ("debug", PROBED, "unknown")}


@asynccontextmanager
async def full(address: TcpAddress) -> AsyncIterator[None]:
    """Strangers hold all places: each has said something, so that none gives way."""
    async with AsyncExitStack() as stack:
        for number in range(HANDSHAKES):
            stream = await dialled_from(stack, f"127.0.0.{2 + number % 2}", address)
            await stream.send_all(encode_hello(hello())[:5])
        with trio.fail_after(PATIENCE):
            while await refused(address) is not CloseReason.OVERLOADED:
                pass  # the first bytes of some are not read yet
        yield


@pytest.mark.failure("34")
@pytest.mark.parametrize("leave", [close, reset, half_close])
async def test_nor_while_there_is_no_place(
    leave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakelimiter, "ENOUGH", PATIENCE)
    async with serving(Peer()) as address, full(address):
        with capture_logs() as logs:
            for number in range(10):
                with socket.create_connection((address.host, address.port)) as probe:
                    await wait_all_tasks_blocked()  # accepted, and looked at before it leaves
                    leave(probe)
                    while len(logs) <= number:
                        await trio.lowlevel.checkpoint()
            assert await refused(address) is CloseReason.OVERLOADED
    said = [(entry["log_level"], entry["event"]) for entry in logs]
    assert said == [("debug", PROBED)] * 10 + [("warning", "link refused")]


async def test_who_is_turned_away_and_silent_gives_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakelimiter, "ENOUGH", PATIENCE)
    async with serving(Peer()) as address, full(address), AsyncExitStack() as stack:
        silent = [await dialled_from(stack, f"127.0.1.{1 + number % 200}", address) for number in range(2 * HANDSHAKES)]
        with trio.fail_after(PATIENCE):
            for stream in silent[:HANDSHAKES]:
                assert await stream.receive_some() == b""
            assert await refused(address) is CloseReason.OVERLOADED


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("said", [b"\x16", b"H"])
async def test_who_says_a_byte_and_leaves_is_one(said: bytes, secured: bool) -> None:
    own = credentials(CA, host_uri(MESH, "host-b")) if secured else None
    async with serving(Peer(), credentials=own) as address:
        with capture_logs() as logs:
            with socket.create_connection((address.host, address.port)) as sock:
                sock.sendall(said)
            while not logs:
                await trio.lowlevel.checkpoint()
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [("warning", "link refused")]


async def test_probes_do_not_choose_how_much_is_written_either() -> None:
    async with serving(Peer()) as address:
        with capture_logs() as logs:
            for _ in range(2 * LINES_AT_ONCE):
                with socket.create_connection((address.host, address.port)) as probe:
                    probe.shutdown(socket.SHUT_WR)
                    await until_closed(probe)
            assert await refused(address, "stranger") is CloseReason.WRONG_HOST
    levels = [entry["log_level"] for entry in logs]
    assert LINES_AT_ONCE <= levels.count("debug") < 2 * LINES_AT_ONCE
    assert levels.count("warning") == 1


async def until_closed(sock: socket.socket) -> None:
    sock.setblocking(False)
    await trio.lowlevel.wait_readable(sock)
    assert sock.recv(1) == b""


@pytest.mark.failure(1)
async def test_nothing_is_left_open() -> None:
    before = open_fds()
    async with serving(Peer(places=1)) as address:
        with (await dial(address, device=ANYWHERE, hello=hello())).sock:
            await refused(address)
            await refused(address, "stranger")
            async with await trio.open_tcp_stream(address.host, address.port):
                pass
    assert not fds_since(before)


@pytest.mark.parametrize(
    ("host", "complaint"),
    [("127.0.0.1", "the port is in use: is another proxy running?")],
)
async def test_what_keeps_it_from_listening_is_one_line(host: str, complaint: str) -> None:
    async with serving(Peer()) as address:
        with pytest.raises(StartError) as caught:
            opened(TcpAddress(host, address.port))
    assert str(caught.value).startswith(f"links.listen: {host}:{address.port}: {complaint}")
    assert "\n" not in str(caught.value)


async def dialled_from(stack: AsyncExitStack, source: str, address: TcpAddress) -> trio.SocketStream:
    sock = trio.socket.socket()
    stream = await stack.enter_async_context(trio.SocketStream(sock))
    await sock.bind((source, 0))
    await sock.connect((address.host, address.port))
    return stream


@pytest.mark.failure(1, 18, "21b-a")
@pytest.mark.parametrize("sources", [1, 2, 200])
async def test_who_says_nothing_gives_way(sources: int) -> None:
    """However many they are, and from however many addresses, also at the address of whoever dials then."""
    async with serving(Peer()) as address, AsyncExitStack() as stack:
        silent = [
            await dialled_from(stack, f"127.0.0.{2 + number % sources}", address) for number in range(2 * HANDSHAKES)
        ]
        for source in ("127.0.0.1", "127.0.0.2"):
            (await dial(address, device=LinkDevice(source), hello=hello())).sock.close()
        with trio.fail_after(PATIENCE):
            for stream in silent[: HANDSHAKES - 2]:
                assert await stream.receive_some() == b"", "closed, the oldest first"


@pytest.mark.failure(18, "21b-a")
async def test_who_says_too_little_gives_way_to_a_configured_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakelimiter, "ENOUGH", PATIENCE)
    async with serving(Peer(), expected=lambda source: source == "127.0.0.9") as address, full(address):
        (await dial(address, device=LinkDevice("127.0.0.9"), hello=hello())).sock.close()


@pytest.mark.failure(18, "21b-a")
async def test_who_says_too_little_for_long_gives_way_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakelimiter, "ENOUGH", 0.0)
    async with serving(Peer()) as address, AsyncExitStack() as stack:
        for number in range(HANDSHAKES):
            stream = await dialled_from(stack, f"127.0.0.{2 + number % 2}", address)
            await stream.send_all(encode_hello(hello())[:5])
        for _ in range(3):
            (await dial(address, device=LinkDevice("127.0.0.9"), hello=hello())).sock.close()


@pytest.mark.failure(18)
async def test_who_dials_all_the_time_is_one_kind_of_line() -> None:
    async with serving(Peer()) as address:
        with capture_logs() as logs:
            for number in range(10):
                assert await refused(address, f"stranger-{number}") is CloseReason.WRONG_HOST
    assert [entry["kind"] for entry in logs] == [("127.0.0.1", CloseReason.WRONG_HOST)] * 10


OTHER = "0123456789abcdef" * 2
MARKED = resuming(hello(), 0, OTHER)


class Earlier:
    """One process of host-b that still lets its streams finish, and which `passed` reaches."""

    def __init__(self, error: HandshakeError | None = None) -> None:
        self.instances: tuple[str, ...] = (OTHER,)
        self.passed = PassedLinks()
        self._error = error

    def pass_on(self, instance: str, connection: socket.socket | trio.socket.SocketType) -> bool:
        if self._error is not None:
            raise self._error
        if instance in self.instances:
            self.passed.put(socket.socket(fileno=os.dup(connection.fileno())))
        return instance in self.instances


@asynccontextmanager
async def two_processes(
    secured: bool, patience: float = 30, error: HandshakeError | None = None
) -> AsyncIterator[tuple[TcpAddress, Peer, Peer, Credentials | None]]:
    """Of host-b: the address, what arrives at the one that accepts, what at the other one, and host-a's credentials."""
    own = credentials(CA, host_uri(MESH, "host-b")) if secured else None
    new, old, earlier = Peer(), Peer(), Earlier(error)
    async with serving(old, credentials=own, passed=earlier.passed):
        async with serving(new, patience, own, earlier=earlier) as address:
            yield address, new, old, credentials(CA, host_uri(MESH, "host-a")) if secured else None
    earlier.passed.close()


@pytest.mark.failure("24")
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_a_link_that_is_meant_for_another_process_is_passed_on(secured: bool) -> None:
    before = open_fds()
    async with two_processes(secured) as (address, new, old, own):
        for told, here, there in ((MARKED, 0, 1), (hello(), 1, 1), (resuming(hello(), 0, OTHER[::-1]), 2, 1)):
            (await dial(address, device=ANYWHERE, hello=told, credentials=own)).sock.close()
            assert (len(new.seen), len(old.seen)) == (here, there)
        assert old.seen[0].hello == MARKED
    assert not fds_since(before)


@pytest.mark.failure("24", 18)
async def test_a_mark_that_comes_byte_by_byte() -> None:
    async with two_processes(False) as (address, new, old, _):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            for byte in encode_hello(MARKED):
                await stream.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            assert (await stream.receive_some())[0] == FrameKind.HELLO
            assert (len(new.seen), len(old.seen)) == (0, 1)


@pytest.mark.failure("24", 18)
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("leave", [close, reset, half_close])
@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02", encode_hello(MARKED)[:-1], b"\x16\x03\x01\x00\x00", b"GET /"])
async def test_a_mark_that_never_comes(said: bytes, leave: Callable[[socket.socket], None], secured: bool) -> None:
    """Whoever leaves meanwhile, or says something else, is treated as ever; the next one is served."""
    async with two_processes(secured) as (address, _, old, own):
        with capture_logs() as logs:
            with socket.create_connection((address.host, address.port)) as sock:
                sock.sendall(said)
                leave(sock)
                while not logs:
                    await trio.lowlevel.checkpoint()
            (await dial(address, device=ANYWHERE, hello=MARKED, credentials=own)).sock.close()
        assert {entry["event"] for entry in logs} <= {"link refused", "link passed on", PROBED}
        assert len(old.seen) == 1


@pytest.mark.failure("24", 18)
async def test_who_is_slow_to_say_whom_it_means_is_dropped_in_time() -> None:
    async with two_processes(False, patience=0.05) as (address, _, _, _):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(encode_hello(MARKED)[:20])
            with suppress(trio.BrokenResourceError):  # a reset, as nobody has read what it has said
                assert await stream.receive_some() == b""


@pytest.mark.failure("24", "21b-a")
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_a_process_that_takes_no_link_now(secured: bool) -> None:
    """The session is not lost: the dialler hears of no reason that says so, and comes again."""
    async with two_processes(secured, error=HandshakeError("busy", CloseReason.OVERLOADED)) as (address, new, old, own):
        with pytest.raises(HandshakeError) as caught:
            await dial(address, device=ANYWHERE, hello=MARKED, credentials=own)
        # The refusal may be lost, as the dialler's HELLO was not read.
        assert caught.value.reason in (CloseReason.LINK_LOST, CloseReason.OVERLOADED)
        assert (new.seen, old.seen) == ([], [])


@pytest.mark.failure("24", "21b-a")
async def test_handshakes_of_links_that_were_passed_on_have_places_too() -> None:
    """A flood of marks takes no more of the other process than a flood of its own would."""
    async with two_processes(False) as (address, new, old, _), AsyncExitStack() as stack:
        for number in range(HANDSHAKES + 20):
            stream = await dialled_from(stack, f"127.0.0.{2 + number % 5}", address)
            frame = encode_hello(resuming(hello(f"stranger-{number}"), 0, OTHER))
            await stream.send_all(frame)
        (await dial(address, device=ANYWHERE, hello=MARKED)).sock.close()
        (await dial(address, device=ANYWHERE, hello=hello())).sock.close()
        assert (len(new.seen), len(old.seen)) == (1, 1)
