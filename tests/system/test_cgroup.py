"""A proxy in a cgroup with little memory: readers that stop are refused or slowed, and the proxy is never killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.system.cgroups import Cgroup, Stalled
from tests.system.memory import descriptors, resident
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure("33")]

MIB = 1 << 20
STALLED = 1000


@pytest.fixture
def cgroup() -> Iterator[Callable[[int], Cgroup]]:
    with ExitStack() as stack:

        def make(limit: int) -> Cgroup:
            try:
                return stack.enter_context(Cgroup(limit))
            except OSError as error:
                pytest.skip(f"no cgroup with a memory limit can be made here: {error.strerror}")

        yield make


@pytest.mark.parametrize(("limit", "memory"), [(64, 9), (128, 37)])
def test_a_thousand_stalled_readers(cgroup: Callable[[int], Cgroup], limit: int, memory: int) -> None:
    descriptors(4 * STALLED + 200)
    made = cgroup(limit * MIB)
    with ExitStack() as stack:
        stalled = Stalled(made, stack)
        assert stalled.ask("b", "status")["memory_limit"] == memory * MIB
        stalled.talk()
        stalled.stall(STALLED)
        assert made.kills() == 0
        assert stalled.mesh.b.running
        assert stalled.refused > 0
        assert stalled.mesh.a.wait_for("stream ended", reason="over_budget")
        stalled.talk()
        stalled.leave()
        stalled.talk()
        assert made.most() <= limit * MIB
    assert made.kills() == 0


def test_memory_goes_back_after_a_stall(cgroup: Callable[[int], Cgroup]) -> None:
    descriptors(4 * STALLED + 200)
    with ExitStack() as stack:
        stalled = Stalled(cgroup(1024 * MIB), stack)
        stalled.talk()
        before = {host: resident(getattr(stalled.mesh, host).pid) for host in "ab"}
        stalled.stall(STALLED // 2)
        held = resident(stalled.mesh.b.pid) - before["b"]
        assert held > 50 * MIB
        stalled.leave()

        def kept() -> int:
            return max(resident(getattr(stalled.mesh, host).pid) - before[host] for host in "ab")

        eventually(lambda: kept() < 16 * MIB, "the memory is the system's again")
        stalled.talk()
