"""One run of the load client, its phases in and its figures out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from benchmarks.errors import BenchError

READY_WITHIN = 10.0
"""Seconds that all connections of a phase have to get their first reply in."""


class Figures(msgspec.Struct, frozen=True):
    """What the load client says of one phase (load.c). Times in µs; busy, idle and stolen are the whole machine's."""

    label: str
    seconds: float
    round_trips: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    bulk_bytes: int
    source_bytes: int
    errors: int
    busy_us: float
    idle_us: float
    stolen_us: float
    rss_kb: list[int]

    @property
    def rate(self) -> float:
        return self.round_trips / self.seconds

    @property
    def cpu_us(self) -> float:
        """Whole-machine CPU per round trip: what was not idle and not stolen."""
        return self.busy_us / max(self.round_trips, 1)

    @property
    def megabytes_per_second(self) -> float:
        return (self.bulk_bytes + self.source_bytes) / self.seconds / 1e6


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    error: str
    wrong: str
    phases: list[Figures]


@dataclass(frozen=True)
class Target:
    """Where a client of a path runs and what it connects to."""

    prefix: tuple[str, ...]
    """Command line that puts the client in its namespace and on its core."""
    address: str
    pids: tuple[int, ...] = field(default=())
    """Of the proxies, A's first; none on a path without proxies."""


@dataclass(frozen=True)
class Phase:
    seconds: float
    what: str
    warm: bool = False

    def __str__(self) -> str:
        return f"{self.seconds:g}:{self.what}{':warm' if self.warm else ''}"


def run(
    load: str,
    target: Target,
    phases: Sequence[Phase],
    *,
    size: int = 64,
    ready_within: float = READY_WITHIN,
    pace: int | None = None,
    on_ready: Callable[[], None] | None = None,
) -> list[Figures]:
    """The figures of every phase that is not warm. ``pace``: messages a second of all connections
    together; None: as fast as replies come. ``on_ready`` is called when the first phase's time begins.

    Raises BenchError when a byte was wrong, connections stayed without a reply, or the run did not end in its time.
    """
    argv = [*target.prefix, load, "--to", target.address, "--size", str(size), "--ready-within", f"{ready_within:g}"]
    if target.pids:
        argv += ["--pids", ",".join(map(str, target.pids))]
    if pace is not None:
        argv += ["--pace", str(pace)]
    for phase in phases:
        argv += ["--phase", str(phase)]
    limit = sum(phase.seconds for phase in phases) + ready_within + 5
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            if on_ready is not None:
                assert process.stderr is not None
                process.stderr.readline()
                on_ready()
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the load client did not end within {limit:g} s") from None
        finally:
            process.kill()
    return figures(out, err)


def figures(out: bytes, err: bytes) -> list[Figures]:
    """What the client has written: the figures of each phase. Raises BenchError as `run` does."""
    try:
        answer = msgspec.json.decode(out, type=_Answer)
    except msgspec.MsgspecError:
        said = err.decode(errors="replace").strip().splitlines()
        raise BenchError(f"the load client failed: {said[-1] if said else 'no output'}") from None
    if answer.wrong:
        raise BenchError(f"WRONG BYTES: {answer.wrong}")
    if not answer.ok:
        raise BenchError(answer.error)
    return answer.phases
