"""Small messages beside containers on the same host that connect and close in a storm, through a second entry of the
same path; and beside the same storm on a service of that host, which no proxy has anything to do with: what the storm
costs in any case, as it takes the core.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.loadrun import Phase
from benchmarks.measures.cell import Cell, Values, load
from benchmarks.options import Options
from benchmarks.paths import BenchPath
from benchmarks.testbed import Testbed

PROCESSES = 4
NAME = f"{PROCESSES} processes"
SMALL = "ping=4"
WARM = 0.5
"""Seconds of the storm before the figures count."""


def cells(options: Options) -> list[Cell]:
    run = partial(_trial, seconds=max(1.0, options.seconds))
    return [Cell("storm", NAME, run, proxies_only=True, two_entries=True)]


def _trial(path: BenchPath, *, seconds: float) -> Values:
    assert path.second_entry is not None
    phases = [Phase(WARM, SMALL, warm=True), Phase(seconds, SMALL)]
    calm = load(path, phases)[0]
    with _service(path.bed) as direct, _storm(path.bed, direct):
        beside = load(path, phases)[0]
    with _storm(path.bed, path.second_entry):
        through = load(path, phases)[0]
    return {
        "calm_p50_us": calm.p50_us,
        "beside_p50_us": beside.p50_us,
        "p50_us": through.p50_us,
        "p99_us": through.p99_us,
        "beside_p99_us": beside.p99_us,
        "storm_ratio": through.p50_us / max(beside.p50_us, 1.0),
        "errors": calm.errors + beside.errors + through.errors,
    }


@contextmanager
def _service(bed: Testbed) -> Iterator[Path]:
    """A server on host A, at a Unix socket."""
    address = bed.folder / "direct.sock"
    process = bed.start(bed.lab.a, [str(bed.programs.echo), "--listen", f"unix:{address}"], stdout=subprocess.PIPE)
    with _ended([process]):
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchError("the server beside the path did not start")
        yield address
    address.unlink(missing_ok=True)


@contextmanager
def _storm(bed: Testbed, entry: Path) -> Iterator[None]:
    processes = [bed.start(bed.lab.a, [str(bed.programs.storm), str(entry)]) for _ in range(PROCESSES)]
    with _ended(processes):
        yield
        if any(process.poll() is not None for process in processes):
            raise BenchError("a storming process could not connect, and has ended")


@contextmanager
def _ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
