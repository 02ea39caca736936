"""What the running proxy says of itself: that it cannot accept, and what it reads or writes without an effect."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

WHERE = "the running proxy"


class ProxyFacts(Struct, frozen=True, kw_only=True):
    """`silent`: it takes connections at its admin socket, or the kernel does for it, and there is no answer: why. The
    others as in `Status`. `unseen`: there is nobody to ask.
    """

    pid: int = 0
    silent: str = ""
    cannot_accept: tuple[str, ...] = ()
    config_stale: str = ""
    record_stopped: str = ""
    unseen: Unchecked | None = None


def judge(facts: ProxyFacts) -> Iterator[Line]:
    """All lines about the running proxy."""
    if facts.unseen is not None:
        yield facts.unseen
        return
    found = list(_faults(facts))
    yield from found
    if not found:
        yield Passed(f"process {facts.pid} answers, accepts, and reads its configuration")


def _faults(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.silent:
        yield Finding(
            name="silent-proxy", level="wrong", where=WHERE, read=f"process {facts.pid}: {facts.silent}",
            cost="whatever it does, nobody can ask or command it, and most likely callers wait as well",
            mend="see its log for `cannot accept a connection`; if it stands still: restart it",
        )  # fmt: skip
    for line in facts.cannot_accept:
        yield Finding(
            name="cannot-accept", level="wrong", where=WHERE, read=line,
            cost="whoever connects there waits in the kernel's queue",
            mend="too many open files, no memory: a higher limit, or fewer calls; not permitted: what denies accept(2) "
            "to the proxy (a seccomp profile, SELinux, AppArmor) must allow it; it then goes on by itself",
        )  # fmt: skip
    if facts.config_stale:
        yield Finding(
            name="stale-configuration", level="wrong", where="the configuration", read=facts.config_stale,
            cost="changes of the file have no effect, also not at a reload",
            mend="mount the file's directory in its place, and restart the container once for that",
        )  # fmt: skip
    if facts.record_stopped:
        yield Finding(
            name="uses-not-recorded", level="note", where="pool.record", read=facts.record_stopped,
            cost="`hostlane pool` will not know of what happens meanwhile",
            mend="move the file away, or a larger pool.record_limit; room on the disk; it then goes on by itself",
        )  # fmt: skip
