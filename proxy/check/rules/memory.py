"""What a proxy may take against what its cgroup may take."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed
from proxy.config.memory import LEAST, MIB, default_memory, room


class MemoryFacts(Struct, frozen=True, kw_only=True):
    """``owner``: whose cgroup it is: a running proxy's, or the one that a proxy would inherit from here."""

    owner: str = ""
    limit: int | None = None
    """Bytes; None: there is no limit that can be seen."""
    file: str = ""
    """The file that says so."""
    memory: int | None = None
    """limits.memory, bytes; None: not set, or no configuration."""


def judge(facts: MemoryFacts) -> Iterator[Line]:
    """The lines about memory."""
    if facts.limit is None:
        yield Passed(f"{facts.owner} has no memory limit that can be seen from here")
        return
    left, memory = room(facts.limit), facts.memory or default_memory(facts.limit)
    source = "" if facts.memory else ", the default here"
    read = (
        f"{facts.owner} is in a cgroup that may take {_mib(facts.limit)} ({facts.file}), of which {_mib(max(0, left))} "
        f"are left beside the proxy itself and the kernel's buffers; limits.memory = {_mib(memory)}{source}"
    )
    if 2 * memory <= left:
        yield Passed(read)
        return
    # The limit with which what is set would fit, twice; the rest grows with it by less than a fifth.
    needed = facts.limit
    while room(needed) < 2 * memory:
        needed += 16 * MIB
    smaller = f"limits.memory: {left // 2 // MIB}MiB, or null, or " if left // 2 >= LEAST else ""
    once = memory <= left
    yield Finding(
        name="memory-limit",
        level="note" if once else "wrong",
        where=facts.owner,
        read=read,
        cost="another process may find no room to take over, or both reach their limits, and then the kernel kills one"
        if once
        else "readers that stop can make the proxy reach the limit, and then the kernel kills it with every stream",
        mend=f"{smaller}MemoryMax={needed // MIB}M in the proxy's systemd unit, mem_limit: {needed // MIB}m in compose",
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.4g} MiB"
