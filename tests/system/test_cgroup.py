"""A proxy in a cgroup with little memory: readers that stop are refused or slowed, and the proxy is never killed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.cgroups import Cgroup, Stalled
from tests.system.memory import descriptors, resident
from tests.tools.process import Process
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


@pytest.mark.parametrize(("limit", "memory"), [(64, 4), (128, 31)])
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


@pytest.mark.parametrize(("limit", "bound"), [(64, 256), (128, 512), (512, None)])
def test_the_kernel_s_buffers_of_links_follow_the_limit(
    cgroup: Callable[[int], Cgroup], limit: int, bound: int | None
) -> None:
    """As the kernel itself tells them. The setting of this machine may keep them below what was asked for."""
    with ExitStack() as stack:
        stalled = Stalled(cgroup(limit * MIB), stack)
        stalled.talk()
        buffers = stalled.link_buffers()
    if bound is None:
        assert max(buffers) > 512 << 10, "the kernel's own"
    else:
        most = [int(Path(f"/proc/sys/net/core/{name}mem_max").read_text()) for name in "rw"]
        assert buffers == {min(bound << 10, 2 * each) for each in most}


def test_a_takeover_that_finds_no_room_changes_nothing(cgroup: Callable[[int], Cgroup]) -> None:
    """Of two processes the kernel would kill one, mostly the elder, with its streams."""
    made = cgroup(64 * MIB)
    with ExitStack() as stack:
        stalled = Stalled(made, stack)
        with stalled.mesh.call() as client, stalled.listener.accept() as server:
            done = subprocess.run([*stalled.mesh.b.argv, "--takeover"], capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert done.stderr.startswith(f"hostlane: --takeover: {made.file} allows 64 MiB, of which ")
            assert "and one more proxy takes 40 MiB; nothing was changed: restart the proxy instead" in done.stderr
            assert len(done.stderr.splitlines()) == 1
            client.sendall(b"as before")
            assert server.recv(9) == b"as before"
        stalled.talk()
    assert made.kills() == 0


def test_a_takeover_that_finds_room(cgroup: Callable[[int], Cgroup]) -> None:
    """While a thousand readers have stopped."""
    descriptors(4 * STALLED + 200)
    made = cgroup(160 * MIB)
    with ExitStack() as stack:
        stalled = Stalled(made, stack)
        stalled.stall(STALLED)
        with Process([*stalled.mesh.b.argv, "--takeover"]) as successor:
            successor.wait_for("proxy ready")
            stalled.talk()
            assert stalled.mesh.b.running
            assert made.kills() == 0
            stalled.leave()
            stalled.mesh.b.wait_for("proxy stopped")
            stalled.talk()


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
