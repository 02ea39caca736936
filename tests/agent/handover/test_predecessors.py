"""How many old processes may go on beside the one that accepts. (With whole proxies: test_sockets.)"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent.handover.predecessors import MOST, Leash, Predecessors
from tests.tools.sockets import open_fds

pytestmark = pytest.mark.failure(24)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def held(leashes: list[Leash]) -> Predecessors:
    """What a process holds that has received them."""
    return Predecessors([(each.name, each.far.dup()) for each in leashes])


async def test_the_oldest_is_told(logs: list[MutableMapping[str, Any]]) -> None:
    before = open_fds()
    leashes = [Leash() for _ in range(MOST + 1)]
    predecessors = held(leashes)
    predecessors.bound()
    assert [entry["process"] for entry in logs] == [leashes[0].name]
    assert await leashes[0].told()
    with trio.move_on_after(0.05) as patience:
        await leashes[1].told()
    assert patience.cancelled_caught, "the others go on"
    predecessors.close()
    predecessors.close()
    for leash in leashes[1:]:
        assert not await leash.told(), "nobody can say it any more"
    for leash in leashes:
        leash.close()
    assert open_fds() == before


async def test_those_that_have_ended_do_not_count(logs: list[MutableMapping[str, Any]]) -> None:
    leashes = [Leash() for _ in range(MOST + 1)]
    predecessors = held(leashes)
    leashes[1].close()
    predecessors.bound()
    assert logs == []
    assert [name for name, _ in predecessors.offers()] == [leashes[0].name, leashes[2].name]
    predecessors.close()
    for leash in leashes:
        leash.close()


async def test_two_processes_of_the_same_number_are_two() -> None:
    """Each container counts from 1."""
    leashes = [Leash(), Leash()]
    assert leashes[0].name != leashes[1].name
    for leash in leashes:
        leash.close()
