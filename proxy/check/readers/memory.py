"""The memory limit of the running proxy's cgroup; without one, of this process's, which a proxy started from here would
be in."""

from __future__ import annotations

from control.base.reading.addresses import ADMIN_SOCKET
from control.base.system.cgroup import memory_limit
from proxy.check.context import DiagnosisContext
from proxy.check.readers.runningproxy import running
from proxy.check.rules.memory import MemoryFacts


def read(context: DiagnosisContext) -> MemoryFacts:
    """Finds the proxy as `readers.limits` does."""
    config = context.config
    pid = running(f"{config.run_dir}/{ADMIN_SOCKET}") if config else None
    found = memory_limit("self" if pid is None else pid)
    return MemoryFacts(
        owner="a process started from here" if pid is None else f"the running proxy, process {pid},",
        limit=None if found is None else found.bytes,
        file="" if found is None else found.file,
        memory=config.limits.memory if config else None,
    )
