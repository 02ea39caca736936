"""Instructions of a message and of a new connection in each proxy: ``python -m benchmarks.instructions [ping=1 ...]``,
as root, needs valgrind.

The proxies run under callgrind, which counts instructions in user mode, those of the kernel not. A count is the same
on a machine that is busy with something else, where a time is not. Under callgrind a proxy is some fifty times as slow,
so its clock is, too (slowclock.c): what it does by the clock it does as often as otherwise. Load client and server run
at full speed, so with several connections the proxies are always those who are waited for, and turns are as full as
the traffic allows. Hostlane runs without busy polling, whose instructions say how long the proxy had nothing to do,
and with the share of streams sampled that is sampled by default at 25,000 connections a second; the default would take
a minute to find it.

Each compiled module is an object file, so the count says which module takes how much; ``python`` is the interpreter
with all that runs in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import loadrun, paths
from benchmarks.anatomy import kinds
from benchmarks.build import build, slow_clock
from benchmarks.errors import BenchError
from benchmarks.loadrun import Phase
from benchmarks.paths.base import ProxyPair
from benchmarks.paths.hostlane import Hostlane
from benchmarks.testbed import Testbed
from proxy.core.modules import MARK

SAMPLED = "telemetry: {sample_streams: 0.04}\n"
NAMES = ("hostlane-no-poll", "floor", "haproxy")
STARTS_WITHIN = 180.0
"""Seconds: an interpreter that imports everything, fifty times as slow."""
SHOWN = 12
"""Objects in a line, those that take most first."""

OUT = "callgrind"
_CALLGRIND = ("valgrind", "--quiet", "--tool=callgrind")
_COST = re.compile(r"[+*-]|\d")
_NAMED = re.compile(r"\((\d+)\)(?: (.+))?")


def by_object(profile: Iterable[str]) -> Counter[str]:
    """Instructions that each object file took itself, out of a callgrind profile (its format, version 1)."""
    names: dict[str, str] = {}
    spent: Counter[str] = Counter()
    current, of_callee = "", False
    for line in profile:
        kind, _, rest = line.rstrip("\n").partition("=")
        if kind in ("ob", "cob") and (named := _NAMED.fullmatch(rest)):
            number, name = named.groups()
            if name:
                names[number] = name
            if kind == "ob":
                current = names[number]
        elif kind == "calls":
            of_callee = True  # the next line is what the callee took
        elif _COST.match(line):
            if not of_callee:
                spent[current] += sum(map(int, line.split()[1:]))  # none is written where it is 0
            of_callee = False
    return spent


def called(path: str) -> str:
    """An object file as the table has it: a module of the core by its name in proxy/, else the file's."""
    name = Path(path).name
    if MARK in name:
        return f"{Path(path).parent.name}.{name.partition(MARK)[0]}"
    if name.startswith(("python", "libpython")):
        return "python"
    return re.sub(r"\.so\b.*|-[\d.]+\.so$", "", name)


def count(path: ProxyPair, what: str, seconds: float) -> list[Counter[str]]:
    """Instructions per round trip in A and in B, by object file, while that load is on the path, which runs `under`
    callgrind. Raises BenchError."""
    [figures] = loadrun.run(
        str(path.bed.programs.load),
        path.target(),
        [Phase(seconds, what)],
        ready_within=STARTS_WITHIN,
        on_ready=lambda: _control(path, "--zero"),
    )
    _control(path, "--dump")
    return [_each(path.folder, process.pid, figures.round_trips) for process in path.processes]


def _control(path: ProxyPair, command: str) -> None:
    for process in path.processes:
        subprocess.run(["callgrind_control", command, str(process.pid)], check=True, capture_output=True)


def _each(folder: Path, pid: int, trips: int) -> Counter[str]:
    """Out of the process's last dump."""
    newest = max(folder.glob(f"{OUT}.{pid}.*"), key=lambda file: int(file.suffix[1:]))
    with newest.open() as profile:
        spent = _gathered(by_object(profile))
    return Counter({name: taken // trips for name, taken in spent.items()})


def _gathered(spent: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for path, taken in spent.items():
        found[called(path)] += taken
    del found["slowclock"]
    return found


def lines(name: str, what: str, sides: Sequence[Counter[str]]) -> Iterator[str]:
    """What is printed of one path and kind of traffic."""
    for side, spent in zip("AB", sides, strict=True):
        shown = ", ".join(f"{where} {taken:,}" for where, taken in spent.most_common(SHOWN) if taken)
        yield f"{name}, {what}, proxy {side}: {spent.total():,} instructions: {shown}"


def main(wanted: Sequence[str], seconds: float = 5.0, names: Sequence[str] = NAMES) -> None:
    with Testbed(build()) as bed:
        for name in names:
            path = paths.make(name, bed)
            assert isinstance(path, ProxyPair)
            if isinstance(path, Hostlane):
                path.more += SAMPLED
            clock, out = f"LD_PRELOAD={slow_clock()}", f"--callgrind-out-file={path.folder}/{OUT}.%p"
            path.under = ("env", clock, *_CALLGRIND, out)
            path.launch()
            path.check(within=STARTS_WITHIN)
            for what in wanted:
                print("\n".join(lines(name, what, count(path, what, seconds))), flush=True)
            path.stop()


if __name__ == "__main__":
    chosen = kinds(sys.argv[1:], "instructions", "Instructions of a round trip in user mode.")
    try:
        if shutil.which("callgrind_control") is None:
            raise BenchError("valgrind is not installed (Debian: apt-get install valgrind)")
        main(chosen)
    except BenchError as error:
        sys.exit(f"benchmarks.instructions: {error}")
