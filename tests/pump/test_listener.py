"""Accepting local connections."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from proxy.pump import listener
from proxy.pump.descriptor import Descriptor
from proxy.pump.listener import Listener
from proxy.pump.opening import LEAST, MOST, TURNS
from proxy.pump.openings import OpeningWindow
from proxy.pump.options import LocalSocket
from tests.pump.rig import Host, running, until
from tests.pump.test_openings import Peer
from tests.tools.sockets import fds_since, open_fds

BURST = MOST // TURNS
Owner = LocalSocket | Descriptor


class Flaky(Listener):
    """One whose first calls of accept end with these errors; counts all."""

    errors: tuple[int, ...] = ()
    tries = 0

    def _accept(self) -> int:
        self.tries += 1
        if self.errors:
            error, self.errors = self.errors[0], self.errors[1:]
            return -error
        return super()._accept()


class Door:
    """A listener, and what came through it."""

    def __init__(self, host: Host, path: Path, accepted: Callable[[Owner], None] | None = None) -> None:
        self.host = host
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        self.sock.bind(str(path))
        self.sock.listen(1000)
        self.accepted: list[Owner] = []
        self.clients: list[socket.socket] = []
        self.window = OpeningWindow()
        self.listener = Flaky(
            host.pump, host.deadlines, self.sock, f"unix:{path}", accepted or self.accepted.append, self.window
        )

    def call(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(str(self.path))
        return client


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    before, host = open_fds(), Host()
    async with running(host):
        door = Door(host, tmp_path / "s")
        yield door
        door.listener.stop()
        door.listener.stop()
        host.check_empty()
        for sock in (door.sock, *door.accepted, *door.clients):
            sock.close()
    assert not fds_since(before)


async def test_gives_connections_that_do_not_block(door: Door) -> None:
    door.call().send(b"hello")
    await until(lambda: door.accepted, "accepted")
    [sock] = door.accepted
    assert not os.get_blocking(sock.fileno())
    assert os.read(sock.fileno(), 10) == b"hello"


async def test_more_than_a_burst(door: Door) -> None:
    for _ in range(3 * BURST):
        door.call()
    await until(lambda: len(door.accepted) == 3 * BURST, "all")


async def test_a_burst_is_bounded(door: Door) -> None:
    for _ in range(2 * BURST):
        door.call()
    door.listener.ready(1)
    assert len(door.accepted) <= BURST


async def test_after_stop_nothing_is_accepted(door: Door) -> None:
    door.listener.stop()
    door.call()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert door.accepted == []


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_fds())) + 1, hard))
    spares = []
    try:
        while True:
            spares.append(socket.socket())
    except OSError as error:
        assert error.errno == errno.EMFILE
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for spare in spares:
            spare.close()


@pytest.mark.failure(1)
async def test_descriptors_run_out_and_come_back(door: Door, logs: list[MutableMapping[str, Any]]) -> None:
    """It says so once, does not spin meanwhile, and takes the callers in that waited."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    door.clients += clients
    with no_more_descriptors():
        for client in clients:
            client.connect(str(door.path))
        await until(lambda: door.listener.tries >= 3, "several attempts")
        assert door.accepted == []
    await until(lambda: len(door.accepted) == 3, "all that waited")
    complaint = {
        "event": "cannot accept a connection",
        "log_level": "error",
        "kind": (f"unix:{door.path}", errno.EMFILE),
        "listen": f"unix:{door.path}",
        "error": "Too many open files",
        "retry_in_s": 0.1,
    }
    assert logs == [complaint]
    door.clients.append(late := socket.socket(socket.AF_UNIX))
    with no_more_descriptors():
        late.connect(str(door.path))
        await until(lambda: len(logs) == 2, "another time, another complaint")
    await until(lambda: len(door.accepted) == 4, "the one that waited")


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOBUFS], ids=errno.errorcode.get)
async def test_it_says_that_it_cannot_accept_until_it_can(door: Door, code: int) -> None:
    assert door.listener.failing == door.listener.held_back == ""
    door.listener.errors = (code,) * 1000
    door.call()
    await until(lambda: door.listener.tries >= 3, "several attempts")
    assert door.listener.failing == os.strerror(code)
    assert door.listener.held_back == f"cannot accept a connection: {os.strerror(code)}"
    door.listener.errors = ()
    await until(lambda: door.accepted, "accepted")
    assert door.listener.failing == door.listener.held_back == ""


@pytest.mark.failure("30")
async def test_who_waited_is_taken_by_another_process(door: Door) -> None:
    """Which has the same socket: nobody waits here then, so nothing fails."""
    door.listener.errors = (errno.EPERM,) * 1000
    door.call()
    await until(lambda: door.listener.failing, "it fails")
    door.clients.append(door.sock.accept()[0])
    await until(lambda: not door.listener.failing, "nobody waits any more")


async def test_stopped_during_a_pause(door: Door, logs: list[MutableMapping[str, Any]]) -> None:
    client = socket.socket(socket.AF_UNIX)
    door.clients.append(client)
    with no_more_descriptors():
        client.connect(str(door.path))
        await until(lambda: logs, "the complaint")
        door.listener.stop()
    await until(lambda: not door.host.deadlines._queue, "the end of the pause")
    assert door.accepted == []


async def test_a_caller_that_is_gone_already_is_passed_over(door: Door) -> None:
    door.listener.errors = (errno.ECONNABORTED,)
    door.call()
    await until(lambda: door.accepted, "accepted")
    assert not door.listener.errors


@pytest.mark.failure(1, 18)
async def test_a_bug_with_one_caller_does_not_stop_the_others(tmp_path: Path) -> None:
    host = Host()
    accepted: list[Owner] = []

    def take(sock: Owner) -> None:
        accepted.append(sock)
        if len(accepted) == 1:
            raise RuntimeError("a bug")

    async with running(host):
        door = Door(host, tmp_path / "s", take)
        for _ in range(3):
            door.call()
        await until(lambda: len(accepted) == 3, "all")
        door.listener.stop()
        for sock in (door.sock, *accepted, *door.clients):
            sock.close()


@pytest.mark.failure("21b-b")
async def test_many_upstreams_take_one_descriptor_of_the_reserve_not_one_each(tmp_path: Path) -> None:
    """What a connection's number is shows when it is accepted, and whoever has called cannot be told to call again."""
    host = Host()
    async with running(host):
        doors = [Door(host, tmp_path / str(number)) for number in range(20)]
        for door in doors * 2:
            door.call()
        shares = host.pump.descriptors
        with socket.socket() as next_one:
            shares.ceiling, shares.scarce = next_one.fileno(), 0
        await until(lambda: all(door.listener.held_back for door in doors), "all wait")
        assert sum(len(door.accepted) for door in doors) == 1
        shares.ceiling += 1000
        await until(lambda: all(len(door.accepted) == 2 for door in doors), "all are served")
        assert not shares.used_up
        for door in doors:
            door.listener.stop()
            for sock in (door.sock, *door.accepted, *door.clients):
                sock.close()


async def test_held_it_leaves_connections_in_the_queue(door: Door) -> None:
    door.listener.hold(True)
    door.call()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert door.accepted == []
    door.listener.hold(False)
    await until(lambda: door.accepted, "accepted")


@pytest.mark.failure("21b-c")
async def test_callers_beyond_the_window_wait_in_the_queue(door: Door) -> None:
    peer = Peer()

    def accepted(sock: Owner) -> None:
        door.accepted.append(sock)
        door.window.add(peer.under_way)

    door.listener.accepted = accepted
    for _ in range(2 * MOST + 1):
        door.call()
    await until(lambda: peer.asked, "the window is full, and the peer is asked")
    assert len(door.accepted) == MOST
    peer.asked.pop()()
    await until(lambda: peer.asked, "full again")
    assert len(door.accepted) == 2 * MOST


@pytest.mark.failure("21b-c")
async def test_callers_that_do_not_wait_for_answers_come_few_at_a_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10):
        door.window.adapt(False)
    assert door.listener.held_back == "", "nobody calls"
    for _ in range(3):
        door.call()
    door.listener.ready(1)
    assert len(door.accepted) == 1
    assert door.listener.held_back == f"callers close before they are answered: {LEAST} of their calls at a time"
    monkeypatch.setattr(listener, "RECENT", 0.0)
    assert door.listener.held_back == ""
    monkeypatch.undo()
    for _ in range(MOST):
        door.window.adapt(True)
    assert door.listener.held_back == ""
    await until(lambda: len(door.accepted) == 3, "all")


async def test_two_reasons_to_wait(door: Door) -> None:
    peer = Peer()
    batches = [door.window.add(peer.under_way) for _ in range(MOST)]
    door.call()
    await until(lambda: peer.asked, "the peer is asked")
    door.listener.hold(True)
    for batch in batches:
        door.window.drop(batch)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert door.accepted == []
    door.listener.hold(False)
    await until(lambda: door.accepted, "accepted")


async def test_finishing_takes_what_waits(door: Door) -> None:
    door.listener.hold(True)
    for _ in range(3 * BURST):
        door.call()
    door.listener.finish()
    assert len(door.accepted) == 3 * BURST
    door.listener.stop()
    door.listener.finish()
