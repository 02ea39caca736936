"""Connecting to local services: at once, later, not at all."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trio
import trio.testing

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from proxy.errors import CloseReason
from proxy.pump import connecting, resolver
from proxy.pump.connecting import ConnectAttempt
from proxy.pump.options import LocalSocket
from tests.pump.rig import Host, running, until
from tests.tools.sockets import PATIENCE, fds_since, open_fds


class Outcome:
    """What one attempt came to."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.sock: LocalSocket | None = None
        self.reason = CloseReason.FINISHED
        self.detail = ""
        self.times = 0

    def __call__(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        self.times += 1
        self.sock, self.reason, self.detail = sock, reason, detail
        self.done.set()


class Bench:
    def __init__(self, host: Host) -> None:
        self.host = host

    def start(
        self, address: Address, timeout: float = 10.0, sources: Sequence[str] = ()
    ) -> tuple[ConnectAttempt | None, Outcome]:
        outcome = Outcome()
        return self.host.connector.connect(address, timeout, outcome, sources=sources), outcome

    async def connect(self, address: Address, timeout: float = 10.0, sources: Sequence[str] = ()) -> Outcome:
        _, outcome = self.start(address, timeout, sources)
        await outcome.done.wait()
        assert outcome.times == 1
        assert (outcome.sock is None) == (outcome.reason is not CloseReason.FINISHED)
        return outcome


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Checks at the end that no descriptor is left, neither open nor in the pump."""
    host, before = Host(), open_fds()
    async with running(host):
        yield Bench(host)
        await until(lambda: not host.connector.backlogs.waiting, "those that were given up")
        host.pump.settle()
        host.check_empty()
    assert not fds_since(before)


def listen(path: Path, backlog: int = 128) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(backlog)
    return sock


async def test_unix(bench: Bench, tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        outcome = await bench.connect(UnixAddress(str(tmp_path / "s")))
        assert outcome.sock is not None
        with closing(outcome.sock):
            assert not outcome.sock.getblocking()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_tcp(bench: Bench, host: str, family: socket.AddressFamily) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        outcome = await bench.connect(TcpAddress(host, listener.getsockname()[1]))
        assert outcome.sock is not None
        with closing(outcome.sock):
            assert not outcome.sock.getblocking()
            assert outcome.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            outcome.sock.send(b"x")


@pytest.mark.failure("29")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_where_it_comes_from(bench: Bench, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, seen = TcpAddress(host, listener.getsockname()[1]), set[str]()
        while len(seen) < 3:
            outcome = await bench.connect(address, sources=["127.0.0.2", "127.0.0.3", "127.0.0.4", "192.0.2.9"])
            assert outcome.sock is not None
            seen.add(outcome.sock.getsockname()[0])
            outcome.sock.close()
        assert seen == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
        outcome = await bench.connect(address, sources=["192.0.2.9"])
        assert (outcome.reason, outcome.detail.rpartition(": ")[2]) == (
            CloseReason.LOCAL_SHORTAGE,
            "no interface of this host has 192.0.2.9, to connect from",
        )


async def test_a_host_name(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = await bench.connect(TcpAddress("localhost", listener.getsockname()[1]))
        assert outcome.sock is not None
        outcome.sock.close()


def names(bench: Bench, **known: list[str] | OSError | threading.Event) -> None:
    """What the name service says: addresses, an error, or nothing until the event."""

    def ask(host: str, *rest: object) -> list[tuple[object, ...]]:
        found = known[host.partition(".")[0]]
        if isinstance(found, threading.Event):
            found.wait(PATIENCE)
            return []
        if isinstance(found, OSError):
            raise found
        return [(0, 0, 0, "", (address, 0)) for address in found]

    bench.host.connector.lookups._ask = ask


@pytest.mark.failure("29")
async def test_all_addresses_of_a_host_name_are_tried(bench: Bench) -> None:
    names(bench, service=["127.0.0.2", "::1", "127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = TcpAddress("service.test", listener.getsockname()[1])
        for _ in range(4):
            outcome = await bench.connect(address)
            assert outcome.sock is not None
            assert outcome.sock.getpeername()[0] == "127.0.0.1"
            outcome.sock.close()


@pytest.mark.failure("29")
async def test_calls_spread_over_the_addresses_of_a_host_name(bench: Bench) -> None:
    names(bench, service=["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    with socket.create_server(("0.0.0.0", 0)) as listener:
        address, seen = TcpAddress("service.test", listener.getsockname()[1]), Counter[str]()
        for _ in range(9):
            outcome = await bench.connect(address)
            assert outcome.sock is not None
            seen[outcome.sock.getpeername()[0]] += 1
            outcome.sock.close()
    assert seen == {"127.0.0.2": 3, "127.0.0.3": 3, "127.0.0.4": 3}


@pytest.mark.failure("29")
async def test_a_service_that_has_moved_is_found_by_the_next_call(bench: Bench) -> None:
    names(bench, service=["127.0.0.2"])
    with socket.create_server(("127.0.0.3", 0)) as listener:
        address = TcpAddress("service.test", listener.getsockname()[1])
        assert (await bench.connect(address)).reason is CloseReason.CONNECT_FAILED
        names(bench, service=["127.0.0.3"])
        outcome = await bench.connect(address)
        assert outcome.sock is not None
        outcome.sock.close()


async def test_a_host_name_that_stands_for_nothing(bench: Bench) -> None:
    names(bench, nowhere=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    outcome = await bench.connect(TcpAddress("nowhere.test", 1))
    assert (outcome.reason, outcome.detail) == (CloseReason.CONNECT_FAILED, "Name or service not known")


@pytest.mark.failure("29")
async def test_a_name_server_that_does_not_answer_keeps_nobody_else_waiting(bench: Bench) -> None:
    answered = threading.Event()
    names(bench, nowhere=answered, service=["127.0.0.1"])
    silent = TcpAddress("nowhere.test", 1)
    try:
        started = [bench.start(silent) for _ in range(resolver.MOST_WAITING)]
        outcome = await bench.connect(silent)
        assert outcome.reason is CloseReason.OVERLOADED
        assert outcome.detail == f"{resolver.MOST_WAITING} connections wait for the address of nowhere.test already"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            outcome = await bench.connect(TcpAddress("service.test", listener.getsockname()[1]))
            assert outcome.sock is not None
            outcome.sock.close()
        assert bench.host.connector.lookups.running == 1
        for attempt, _ in started:
            assert attempt is not None
            attempt.cancel()
        outcome = await bench.connect(silent, timeout=0.05)
        assert (outcome.reason, outcome.detail) == (
            CloseReason.CONNECT_TIMEOUT,
            "nowhere.test was not resolved in 0.05 s",
        )
        assert not any(outcome.times for _, outcome in started)
    finally:
        answered.set()
    await until(lambda: not bench.host.connector.lookups.running, "the look-up's end")


async def test_refused(bench: Bench, tmp_path: Path) -> None:
    listen(tmp_path / "dead").close()
    refused = (CloseReason.CONNECT_FAILED, "Connection refused")
    outcome = await bench.connect(UnixAddress(str(tmp_path / "dead")))
    assert (outcome.reason, outcome.detail) == refused
    outcome = await bench.connect(TcpAddress("127.0.0.1", 1))
    assert (outcome.reason, outcome.detail) == refused


async def test_a_path_that_does_not_exist(bench: Bench, tmp_path: Path) -> None:
    outcome = await bench.connect(UnixAddress(str(tmp_path / "missing")))
    assert (outcome.reason, outcome.detail) == (CloseReason.CONNECT_FAILED, "No such file or directory")


@pytest.mark.failure("29")
async def test_no_descriptors(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object) -> None:
        raise OSError(24, "Too many open files")

    with listen(tmp_path / "s"):
        monkeypatch.setattr(connecting, "LocalSocket", refuse)
        outcome = await bench.connect(UnixAddress(str(tmp_path / "s")))
        monkeypatch.undo()
    assert (outcome.reason, outcome.detail) == (CloseReason.LOCAL_SHORTAGE, "this proxy has no descriptor left")


# -------------------------------------------------------------------------------------------------------- full backlogs


def fill_backlog(path: Path, stack: ExitStack) -> socket.socket:
    """A listener whose backlog has no room."""
    listener = stack.enter_context(listen(path, 0))
    while True:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return listener


def make_room(listener: socket.socket) -> None:
    listener.accept()[0].close()


@pytest.mark.failure(5, 20)
async def test_a_full_backlog_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = fill_backlog(tmp_path / "s", stack)
        _, outcome = bench.start(UnixAddress(str(tmp_path / "s")))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not outcome.done.is_set()
        make_room(listener)
        await outcome.done.wait()
        assert outcome.sock is not None
        assert not outcome.sock.getblocking()
        outcome.sock.close()


@pytest.mark.failure(5, 20)
async def test_a_backlog_that_stays_full(bench: Bench, tmp_path: Path) -> None:
    with ExitStack() as stack:
        fill_backlog(tmp_path / "s", stack)
        outcome = await bench.connect(UnixAddress(str(tmp_path / "s")), timeout=0.05)
        assert outcome.reason is CloseReason.CONNECT_TIMEOUT
        assert outcome.detail == "its backlog was full for 0.05 s"


@pytest.mark.failure("29")
async def test_no_thread_to_look_a_name_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of processes is reached: it costs this call, not the proxy."""

    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr("trio._core._thread_cache.ThreadCache.start_thread_soon", refuse)
        outcome = await bench.connect(TcpAddress("service.test", 1))
    assert outcome.reason is CloseReason.LOCAL_SHORTAGE
    assert outcome.detail == "this machine gives this proxy no more threads"


@pytest.mark.failure(5)
async def test_each_gives_up_after_its_own_timeout(bench: Bench, tmp_path: Path) -> None:
    """Many callers of a service that has stopped accepting, not one after the other."""
    with ExitStack() as stack:
        listener = fill_backlog(tmp_path / "s", stack)
        blockers = [bench.start(UnixAddress(str(tmp_path / "s")), 60) for _ in range(100)]
        outcome = await bench.connect(UnixAddress(str(tmp_path / "s")), timeout=0.05)
        assert outcome.reason is CloseReason.CONNECT_TIMEOUT
        for attempt, _ in blockers:
            assert attempt is not None
            attempt.cancel()
        listener.close()


@pytest.mark.failure(5, "21b-e")
async def test_first_come_first_served(bench: Bench, tmp_path: Path) -> None:
    """Also beside callers that come when there is room again: they go to the end of the queue."""
    with ExitStack() as stack:
        path = UnixAddress(str(tmp_path / "s"))
        listener = fill_backlog(tmp_path / "s", stack)
        outcomes = [bench.start(path)[1] for _ in range(5)]
        gone, _ = bench.start(path)
        assert gone is not None
        gone.cancel()
        make_room(listener)
        outcomes.append(bench.start(path)[1])
        for number, outcome in enumerate(outcomes):
            await outcome.done.wait()
            assert [each.done.is_set() for each in outcomes[number + 1 :]] == [False] * (5 - number)
            assert outcome.sock is not None
            outcome.sock.close()
            make_room(listener)


@pytest.mark.failure(19, "21b-e")
async def test_only_so_many_may_wait_and_no_service_has_all_places(bench: Bench, tmp_path: Path) -> None:
    """A service that has stopped leaves others half of them, the next one a quarter, and so on."""
    with ExitStack() as stack:
        places = 0
        listeners = [fill_backlog(tmp_path / f"s{number}", stack) for number in range(4)]
        outcomes = []
        for number, share in enumerate((512, 256, 128, 64)):
            mine = [bench.start(UnixAddress(str(tmp_path / f"s{number}")), 60)[1] for _ in range(share + 2)]
            assert [each.done.is_set() for each in mine] == [False] * share + [True] * 2
            assert {each.reason for each in mine[share:]} == {CloseReason.OVERLOADED}
            assert mine[-1].detail == f"{share} connections wait for room in its backlog already"
            places += share
            outcomes += mine
        assert bench.host.connector.backlogs.waiting == places == 960
        for listener in listeners:
            listener.close()
        for outcome in outcomes:
            await outcome.done.wait()


@pytest.mark.failure("21b-e")
@pytest.mark.parametrize("stopped", [1, 20, 200])
async def test_services_that_have_stopped_hold_up_no_other(bench: Bench, tmp_path: Path, stopped: int) -> None:
    """Another one whose backlog is full for a moment gets its callers as soon as it has room."""
    with ExitStack() as stack:
        listeners = [fill_backlog(tmp_path / f"s{number}", stack) for number in range(stopped)]
        stuck = [
            bench.start(UnixAddress(str(tmp_path / f"s{number}")), 60)[1]
            for number in range(stopped)
            for _ in range(400 // stopped)
        ]
        busy = fill_backlog(tmp_path / "busy", stack)
        for _ in range(20):
            _, outcome = bench.start(UnixAddress(str(tmp_path / "busy")))
            assert not outcome.done.is_set()
            make_room(busy)
            await outcome.done.wait()
            assert outcome.sock is not None
            outcome.sock.close()
        assert not any(outcome.done.is_set() for outcome in stuck)
        for listener in listeners:
            listener.close()
        for outcome in stuck:
            await outcome.done.wait()
            assert outcome.reason is CloseReason.CONNECT_FAILED


# -------------------------------------------------------------------------------------------------------- TCP, slowly


def deaf() -> tuple[ExitStack, TcpAddress]:
    """A TCP address that answers no SYN: its backlog is full."""
    stack = ExitStack()
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    for _ in range(3):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(address)
    return stack, TcpAddress(*address)


async def test_no_answer(bench: Bench) -> None:
    stack, address = deaf()
    with stack:
        outcome = await bench.connect(address, timeout=0.05)
        assert (outcome.reason, outcome.detail) == (CloseReason.CONNECT_TIMEOUT, "no answer in 0.05 s")


async def test_giving_up(bench: Bench, tmp_path: Path) -> None:
    """Cancelled in each of its states, an attempt tells nobody and leaves nothing (the fixture counts)."""
    stack, address = deaf()
    with stack:
        listener = fill_backlog(tmp_path / "s", stack)
        connecting_attempt, first = bench.start(address)
        waiting_attempt, second = bench.start(UnixAddress(str(tmp_path / "s")))
        await trio.testing.wait_all_tasks_blocked(0.01)
        for attempt in (connecting_attempt, waiting_attempt):
            assert attempt is not None
            attempt.cancel()
            attempt.cancel()
        listener.close()
        assert (first.times, second.times) == (0, 0)


@pytest.mark.failure(18)
async def test_a_bug_in_who_gets_the_socket(bench: Bench) -> None:
    def fail(sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        failed.set()
        if sock is not None:
            sock.close()
        raise RuntimeError("a bug")

    failed = trio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = TcpAddress("127.0.0.1", listener.getsockname()[1])
        bench.host.connector.connect(address, 10, fail)
        await failed.wait()
        outcome = await bench.connect(address)
        assert outcome.sock is not None
        outcome.sock.close()
