"""How many old processes may go on beside the one that accepts, and how it finds them. (With whole proxies:
test_sockets, tests/agent/test_keptlinks.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent.handover.leash import END, LINK, Leash, path_of
from proxy.agent.handover.memoryshares import MemoryShares, Share
from proxy.agent.handover.predecessors import MOST, Predecessors
from proxy.config.memory import MIB
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import new_id
from proxy.pump.budget import MemoryBudget
from tests.agent.handover.rig import short_folder
from tests.links.wire import tcp_pair
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.failure("24")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def held(leashes: list[Leash]) -> Predecessors:
    """What a process holds that has received them."""
    return Predecessors([(each.name, each.far.dup()) for each in leashes])


def said(leash: Leash) -> bytes | None:
    """The next word that has come through a leash; None: none has."""
    try:
        return leash._near.recv(64)
    except BlockingIOError:
        return None


def test_the_oldest_is_told(logs: list[MutableMapping[str, Any]]) -> None:
    before = open_fds()
    leashes = [Leash(new_id()) for _ in range(MOST + 1)]
    predecessors = held(leashes)
    predecessors.bound()
    assert [entry["process"] for entry in logs] == [leashes[0].name]
    assert [said(leash) for leash in leashes] == [END, None, None], "the others go on"
    assert predecessors.instances == (leashes[1].instance, leashes[2].instance)
    predecessors.close()
    predecessors.close()
    for leash in leashes:
        leash.close()
        leash.close()
    assert not fds_since(before)


def test_those_that_have_ended_do_not_count(logs: list[MutableMapping[str, Any]]) -> None:
    leashes = [Leash(new_id()) for _ in range(MOST + 1)]
    predecessors = held(leashes)
    leashes[1].close()
    predecessors.bound()
    assert logs == []
    assert [name for name, _ in predecessors.offers()] == [leashes[0].name, leashes[2].name]
    predecessors.close()
    for leash in leashes:
        leash.close()


def test_two_processes_of_the_same_number_are_two() -> None:
    """Each container counts from 1."""
    leashes = [Leash(new_id()), Leash(new_id())]
    assert leashes[0].name != leashes[1].name
    for leash in leashes:
        leash.close()


def test_a_link_goes_to_the_process_that_it_is_meant_for() -> None:
    leashes = [Leash(new_id()), Leash(new_id())]
    predecessors = held(leashes)
    one, other = tcp_pair()
    assert predecessors.pass_on(leashes[1].instance, other)
    assert not predecessors.pass_on(new_id(), other), "nobody's"
    assert said(leashes[0]) is None
    word, descriptors, _, _ = socket.recv_fds(leashes[1]._near, 64, 1)
    assert word == LINK
    other.close()
    one.send(b"every byte")
    with socket.socket(fileno=descriptors[0]) as passed:
        passed.setblocking(True)
        assert passed.recv(100) == b"every byte"
    one.close()
    predecessors.close()
    for leash in leashes:
        leash.close()


def test_a_process_that_does_not_read_or_has_ended() -> None:
    leash = Leash(new_id())
    predecessors = held([leash])
    one, other = tcp_pair()
    with one, other:
        with pytest.raises(HandshakeError) as caught:
            for _ in range(100_000):
                assert predecessors.pass_on(leash.instance, other)
        assert caught.value.reason is CloseReason.OVERLOADED, "the dialler comes again"
        leash.close()
        assert not predecessors.pass_on(leash.instance, other)
        assert predecessors.instances == ()


def test_one_of_an_earlier_version_is_told_to_end_and_nothing_else() -> None:
    near, far = socket.socketpair()
    predecessors = Predecessors([(f"{os.getpid()}-0a1b2c3d", far)])
    assert predecessors.instances == ()
    leashes = [Leash(new_id()) for _ in range(MOST)]
    predecessors._held += [(each.name, each.far.dup()) for each in leashes]
    predecessors.bound()
    assert near.recv(64) == END
    near.close()
    predecessors.close()
    for leash in leashes:
        leash.close()


def test_those_that_nobody_has_handed_on_are_found(run_dir: Path, logs: list[MutableMapping[str, Any]]) -> None:
    """The process that had their leashes has crashed."""
    leashes = [Leash(new_id()) for _ in range(MOST + 1)]
    for age, leash in enumerate(leashes):
        leash.let_go(str(run_dir))
        os.utime(path_of(str(run_dir), leash.instance), (age, age))
    dead = run_dir / "old-dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(dead))
    (run_dir / "old-no-socket.sock").touch()
    predecessors = Predecessors()
    predecessors.find(str(run_dir))
    assert not dead.exists()
    assert predecessors.instances == tuple(each.instance for each in leashes)
    assert {entry["process"] for entry in logs if "goes on" in entry["event"]} == {each.name for each in leashes}
    predecessors.find(str(run_dir))
    predecessors.bound()
    assert predecessors.instances == (leashes[1].instance, leashes[2].instance)
    predecessors.close()
    for leash in leashes:
        leash.close()
    assert [path.name for path in run_dir.iterdir()] == ["old-no-socket.sock"]


def test_a_directory_that_is_not_there(run_dir: Path) -> None:
    predecessors = Predecessors()
    predecessors.find(str(run_dir / "nowhere"))
    assert predecessors.instances == ()


async def test_memory_is_shared_with_those_that_live(autojump_clock: trio.testing.MockClock) -> None:
    leashes = [Leash(new_id()), Leash(new_id())]
    budget = MemoryBudget(600 * MIB, 300 * MIB)
    memory = MemoryShares(budget, lambda: 0, 600 * MIB, 300 * MIB)
    old_far = socket.socketpair()
    predecessors = Predecessors([("1-0a1b2c3d", old_far[0]), *((each.name, each.far) for each in leashes)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(predecessors.share, memory)
        await trio.sleep(0.05)
        assert budget.limit == 200 * MIB, "nobody has said anything"
        for leash, use in zip(leashes, (120 * MIB, 30 * MIB), strict=True):
            leash._near.send(b"uses %d" % use)
        await trio.sleep(1)
        assert budget.limit == 150 * MIB
        assert [said(leash) for leash in leashes] == [
            b"may %d %d" % (size, size // 2) for size in (270 * MIB, 180 * MIB)
        ]
        await trio.sleep(3)
        assert [said(leash) for leash in leashes] == [None, None], "nothing has changed"
        leashes[0]._near.close()
        await trio.sleep(1)
        assert budget.limit == 285 * MIB
        leashes[1]._near.close()
        # It returns: none is left.
    assert budget.limit == 600 * MIB
    predecessors.close()
    old_far[1].close()


async def test_once_another_process_accepts_it_divides_nothing_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leash, budget = Leash(new_id()), MemoryBudget(100 * MIB)
    memory = MemoryShares(budget, lambda: 0, 100 * MIB, 100 * MIB)
    predecessors = Predecessors([(leash.name, leash.far.dup())])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(predecessors.share, memory)
        await trio.sleep(0.5)
        predecessors.close()
        memory.told(Share(7, 7))
    assert budget.limit == 7
    leash.close()
