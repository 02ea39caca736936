from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from control.base.system.commanders import Commanders
from proxy.agent.handover import leash as leash_module
from proxy.agent.handover.leash import COUNT, END, LAST, LINK, Leash, has_ended, heard, listening_in, path_of, send
from proxy.agent.handover.memoryshares import Share
from proxy.links.carry import new_id
from tests.agent.handover.rig import short_folder
from tests.links.wire import tcp_pair
from tests.pump.rig import until
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.failure("24")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Process:
    """One that was taken over, and writes down what it is told."""

    def __init__(self) -> None:
        self.hurries = 0
        self.links: list[socket.socket] = []
        self.shares: list[Share] = []

    def may(self, share: Share) -> None:
        self.shares.append(share)

    def uses(self) -> int:
        return 4711

    def hurry(self) -> None:
        self.hurries += 1

    def link(self, connection: socket.socket) -> None:
        self.links.append(connection)


class Nobody(Commanders):
    def refusal(self, sock: object) -> str | None:
        return "not you"


@asynccontextmanager
async def following(
    run_dir: Path, commanders: Commanders | None = None
) -> AsyncIterator[tuple[Leash, Process, socket.socket]]:
    """A process that was taken over, and the far end that the other one has."""
    before = open_fds()
    leash, process = Leash(new_id()), Process()
    far = leash.far.dup()
    async with trio.open_nursery() as nursery:
        leash.let_go(str(run_dir))
        nursery.start_soon(leash.follow, process, commanders or Commanders())
        yield leash, process, far
        nursery.cancel_scope.cancel()
    for each in (far, *process.links):
        each.close()
    leash.close()
    assert not fds_since(before)
    assert list(run_dir.iterdir()) == []


def connected(run_dir: Path, leash: Leash) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(path_of(str(run_dir), leash.instance))
    return sock


async def test_what_it_is_told(run_dir: Path) -> None:
    async with following(run_dir) as (leash, process, far):
        assert listening_in(str(run_dir)) == [leash.instance]
        one, other = tcp_pair()
        with one, other:
            send(far, LINK, other.fileno())
            send(far, b"of a later version")
            send(far, END)
            await until(lambda: process.hurries == 1, "it is told")
            [link] = process.links
            assert link.getpeername() == one.getsockname()
            assert not link.getblocking()


async def test_after_a_crash_another_process_says_it(run_dir: Path) -> None:
    async with following(run_dir) as (leash, process, far):
        far.close()
        for number in (1, 2):
            with connected(run_dir, leash) as sock:
                assert not has_ended(sock)
                send(sock, END)
                await until(lambda number=number: process.hurries == number, "it is told")  # type: ignore[misc]


async def test_what_it_says_and_is_told_about_memory(run_dir: Path) -> None:
    async with following(run_dir) as (leash, process, far):
        await trio.lowlevel.wait_readable(far)
        assert (heard(far), heard(far)) == (4711, None)
        send(far, b"may 5000 2500")
        for wrong in (b"may 1", b"may 1 x", b"may -1 1", b"may 1 2 3", b"may 9999999999999999 1", b"maybe 1 2", b"may"):
            send(far, wrong)
        await until(lambda: process.shares == [Share(5000, 2500)], "it is told")
        with connected(run_dir, leash) as sock:
            await trio.lowlevel.wait_readable(sock)
            assert heard(sock) == 4711
        send(far, END)
        await until(lambda: process.hurries == 1, "nothing has come of the rest")
        assert len(process.shares) == 1


def test_what_is_said_to_the_other_end() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for word in (b"uses 1", b"uses 2", b"uses x", b"of a later version 3"):
        near.send(word)
    near.close()
    assert has_ended(far)
    assert heard(far) == 2
    assert heard(far) is None
    far.close()


async def test_more_connections_than_anybody_needs_wait(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash_module, "MOST_LEASHES", 1)
    async with following(run_dir) as (leash, process, _):
        with connected(run_dir, leash) as second:
            with connected(run_dir, leash) as third:
                send(third, END)
                await trio.testing.wait_all_tasks_blocked(0.01)
                second.close()
                await until(lambda: process.hurries == 1, "the next one's turn")


async def test_who_may_not_command_is_not_heard(run_dir: Path) -> None:
    with capture_logs() as logs:
        async with following(run_dir, Nobody()) as (leash, process, _):
            with connected(run_dir, leash) as sock:
                send(sock, END)
                await until(lambda: has_ended(sock) and logs != [], "it is closed")
            assert not process.hurries
    assert [entry["error"] for entry in logs] == ["not you"]


async def test_descriptors_that_are_no_link(run_dir: Path) -> None:
    """They are closed: `following` counts."""
    async with following(run_dir) as (_, process, far):
        read, write = os.pipe()
        one, other = socket.socketpair()
        with one, other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for descriptor in (read, one.fileno(), datagrams.fileno()):
                send(far, LINK, descriptor)
            send(far, b"what", read)
            send(far, LINK)
            send(far, END)
            await until(lambda: process.hurries == 1, "it is told")
        os.close(read)
        os.close(write)
        assert process.links == []


async def test_a_run_dir_in_which_it_cannot_listen(run_dir: Path) -> None:
    leash = Leash(new_id())
    (run_dir / "file").touch()
    with capture_logs() as logs:
        leash.let_go(str(run_dir / "file"))
    assert [entry["log_level"] for entry in logs] == ["warning"]
    far, process = leash.far, Process()
    with trio.move_on_after(0.01):
        await leash.follow(process, Commanders())
    assert far.fileno() < 0
    leash.close()


@given(words=st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_any_words(words: list[bytes]) -> None:
    async def follow() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for word in words:
            send(far, word)
        far.close()
        await leash_module._heed(near, Process())
        assert near.fileno() < 0

    trio.run(follow)


def test_the_last_words_of_one_that_has_left_words_unread() -> None:
    leash = Leash(new_id())
    far = leash.far.dup()
    with far:
        send(far, b"may 5 5")  # it does not read that any more
        send(leash._near, b"uses 7")
        send(leash._near, COUNT + b"numbers")
        leash.close()
        packets: list[bytes] = []
        assert heard(far, packets.append) == 7
        assert packets == [b"numbers"]
        assert heard(far, packets.append) is None


class Numbers:
    """What is to be told: one more each time."""

    def __init__(self) -> None:
        self.told = 0

    async def tell(self, say: Callable[[bytes], Awaitable[None]]) -> None:
        await say(b"%d" % self.told)
        self.told += 1


async def test_numbers_are_told_every_second_and_at_the_end(run_dir: Path, autojump_clock: trio.abc.Clock) -> None:
    leash, numbers = Leash(new_id()), Numbers()
    with leash.far.dup() as far:
        leash.let_go(str(run_dir))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leash.follow, Process(), Commanders(), numbers)
            await trio.sleep(1.5)
            packets: list[bytes] = []
            heard(far, packets.append)
            assert packets == [b"0", b"1"]
            nursery.cancel_scope.cancel()
        await leash.last(numbers)
        leash.close()
        heard(far, packets.append)
        assert packets == [b"0", b"1", b"2", b"3"]


async def test_the_last_numbers_wait_for_room_and_not_for_ever(autojump_clock: trio.abc.Clock) -> None:
    class Many:
        async def tell(self, say: Callable[[bytes], Awaitable[None]]) -> None:
            while True:
                await say(bytes(30_000))

    leash = Leash(new_id())
    began = trio.current_time()
    await leash.last(Many())
    assert trio.current_time() - began == pytest.approx(LAST)
    leash.close()
