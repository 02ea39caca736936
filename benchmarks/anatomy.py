"""Where a round trip goes: ``python -m benchmarks.anatomy [ping=128 req=16 ...]``, as root, needs strace.

For each kind of traffic (as the load client has it: ping=N, req=N) and each of the two proxies: CPU µs per round trip
in user mode and in the kernel (/proc/PID/stat, without strace), and system calls per round trip (strace -c). While
strace is on everything is several times slower, so turns are fuller and calls per round trip a little fewer.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import loadrun, paths
from benchmarks.build import build
from benchmarks.errors import BenchError
from benchmarks.loadrun import Figures, Phase
from benchmarks.paths.base import ProxyPair
from benchmarks.testbed import Testbed

SHOWN = 8
"""System calls in the table, most frequent first."""
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
NAMES = ("hostlane", "floor", "haproxy")


def cpu(stat: str) -> tuple[float, float]:
    """User and kernel µs out of /proc/PID/stat (proc(5): fields 14 and 15, in ticks)."""
    fields = stat.rpartition(")")[2].split()
    return float(fields[11]) * TICK_US, float(fields[12]) * TICK_US


def calls(summary: str) -> dict[str, int]:
    """System calls and how often, out of ``strace -c -U calls,name``."""
    rows = (line.split() for line in summary.splitlines())
    pairs = (row for row in rows if len(row) == 2 and row[0].isdigit())
    return {name: int(count) for count, name in pairs if name != "total"}


def _stats(path: ProxyPair) -> list[tuple[float, float]]:
    return [cpu(Path(f"/proc/{process.pid}/stat").read_text()) for process in path.processes]


def _run(path: ProxyPair, what: str, seconds: float) -> Figures:
    phases = [Phase(0.3, what, warm=True), Phase(seconds, what)]
    return loadrun.run(str(path.bed.programs.load), path.target(), phases)[0]


def _traced(path: ProxyPair, what: str, seconds: float) -> list[dict[str, float]]:
    folder = path.bed.folder
    tracers = []
    for side, process in zip("ab", path.processes, strict=True):
        argv = ["strace", "-c", "-f", "-U", "calls,name", "-o", str(folder / side), "-p", str(process.pid)]
        tracers.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
    time.sleep(0.5)  # until both are attached
    figures = _run(path, what, seconds)
    for tracer in tracers:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    # The warming up was traced as well, at the same pace.
    trips = figures.round_trips * (seconds + 0.3) / seconds
    return [{name: count / trips for name, count in calls((folder / side).read_text()).items()} for side in "ab"]


def report(path: ProxyPair, what: str, seconds: float) -> list[str]:
    """The lines for one path and kind of traffic."""
    before = _stats(path)
    figures = _run(path, what, seconds)
    spent = [(end[0] - start[0], end[1] - start[1]) for start, end in zip(before, _stats(path), strict=True)]
    trips = figures.round_trips * (seconds + 0.3) / seconds
    lines = [f"{path.name}, {what}: {figures.rate:,.0f}/s, {figures.cpu_us:.1f} µs of the whole machine each"]
    for side, (user, kernel), counted in zip("AB", spent, _traced(path, what, seconds), strict=True):
        top = sorted(counted.items(), key=lambda item: -item[1])[:SHOWN]
        shown = ", ".join(f"{name} {count:.2f}" for name, count in top)
        lines.append(
            f"  proxy {side}: user {user / trips:.1f} µs, kernel {kernel / trips:.1f} µs; "
            f"{sum(counted.values()):.2f} system calls: {shown}"
        )
    return lines


def main(wanted: Sequence[str], seconds: float = 2.0, names: Sequence[str] = NAMES) -> None:
    with Testbed(build()) as bed:
        for name in names:
            path = paths.make(name, bed)
            assert isinstance(path, ProxyPair)
            path.launch()
            path.check()
            for what in wanted:
                print("\n".join(report(path, what, seconds)), flush=True)
            path.stop()


def kinds(argv: Sequence[str], program: str = "anatomy", does: str = "Where a round trip goes.") -> list[str]:
    """What the command line of that program of benchmarks/ asks for."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=does)
    text = "ping=128, req=16: on connections that stay, or on a new one each"
    parser.add_argument("kinds", nargs="*", type=_kind, metavar="KIND=COUNT", help=text)
    found: list[str] = parser.parse_args(argv).kinds
    return found or ["ping=128", "ping=16", "req=128", "req=16"]


def _kind(text: str) -> str:
    if not re.fullmatch(r"(ping|req)=[1-9][0-9]{0,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: ping=COUNT, req=COUNT")
    return text


if __name__ == "__main__":
    wanted = kinds(sys.argv[1:])
    try:
        if shutil.which("strace") is None:
            raise BenchError("strace is not installed (Debian: apt-get install strace)")
        main(wanted)
    except BenchError as error:
        sys.exit(f"benchmarks.anatomy: {error}")
