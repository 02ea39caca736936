"""Compile the C files here into benchmarks/build, when they are newer than what is there."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchError

HERE = Path(__file__).resolve().parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
SHARED = ("-shared", "-fPIC")


@dataclass(frozen=True)
class Programs:
    load: Path
    echo: Path
    storm: Path
    floor: Path


def build(into: Path = HERE / "build") -> Programs:
    """Raises BenchError with the compiler's first complaint, or when there is no gcc."""
    into.mkdir(parents=True, exist_ok=True)
    return Programs(*(_compile(name, into) for name in ("load", "echo", "storm", "floor")))


def slow_clock(into: Path = HERE / "build") -> Path:
    """The library that slows a program's clock (slowclock.c). Raises BenchError as `build` does."""
    into.mkdir(parents=True, exist_ok=True)
    return _compile("slowclock", into, *SHARED)


def _compile(name: str, into: Path, *more: str) -> Path:
    sources = [HERE / f"{name}.c", HERE / "wire.h"]
    program = into / name
    if program.exists() and program.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return program
    fresh = into / f"{name}.{os.getpid()}"  # renamed when it is whole: two runs may build at once
    try:
        done = subprocess.run(["gcc", *FLAGS, *more, str(sources[0]), "-o", str(fresh)], capture_output=True, text=True)
    except FileNotFoundError:
        raise BenchError("gcc is not installed (Debian: apt-get install gcc libc6-dev)") from None
    if done.returncode != 0:
        raise BenchError(f"gcc {name}.c: {done.stderr.strip().splitlines()[0]}")
    fresh.replace(program)
    return program
