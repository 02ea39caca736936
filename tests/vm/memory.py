"""A proxy in a cgroup of version 2, which machines that mount version 1 cannot have: as tests/system/test_cgroup.py."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from tests.system.cgroups import V2, Cgroup, Stalled
from tests.system.memory import descriptors
from tests.vm.check import Diagnosis
from tests.vm.inside import configure, group

MIB = 1 << 20
LIMIT = 64 * MIB
STALLED = 1000


def run() -> None:
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(V2)], check=True)
    descriptors(4 * STALLED + 200)
    with group("memory, cgroup v2") as checks, ExitStack() as stack:
        cgroup = stack.enter_context(Cgroup(LIMIT))
        checks.check("it is version 2", cgroup.v2)
        configure("limits: {memory: 512MiB}\n")
        it = Diagnosis("--config", "/run/vm.yaml", prefix=cgroup.inside([]))
        found = it.of("memory-limit", "a process started from here")
        checks.check("check compares limit and setting", found is not None and str(cgroup.file) in found["read"], found)
        stalled = Stalled(cgroup, stack)
        limit = stalled.ask("b", "status")["memory_limit"]
        checks.check("the default follows the limit", limit == 4 * MIB, limit)
        stalled.talk()
        buffers = stalled.link_buffers()
        checks.check("the kernel's buffers of a link follow the limit", max(buffers) <= LIMIT // 256, sorted(buffers))
        stalled.stall(STALLED)
        checks.check("readers that stop are refused", stalled.refused > 0, stalled.refused)
        checks.check("none of the kernel's kills", cgroup.kills() == 0 and stalled.mesh.b.running, cgroup.kills())
        stalled.talk()
        checks.check("the next call is answered", True)
        stalled.leave()
