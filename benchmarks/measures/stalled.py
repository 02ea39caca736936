"""Small messages beside a stream whose reader stopped; also one opened right after a full-speed stream was aborted.

A trial measures the same 16 connections without such a stream, beside one, while another stream runs at full speed, and
beside one that is opened in the moment in which that stream is aborted.
"""

from __future__ import annotations

from functools import partial

from benchmarks.loadrun import Figures, Phase
from benchmarks.measures.cell import Cell, Values, load
from benchmarks.options import Options
from benchmarks.paths import BenchPath

SMALL = "ping=16"
NAMES = {"the server stops reading": ("stallw", "bulk"), "the client stops reading": ("stallr", "source")}
STALLED_US = 100_000.0
"""A message that waited longer than this was not slow, it was stuck."""


def cells(options: Options) -> list[Cell]:
    seconds = 0.3 if options.quick else 0.4
    times = max(1, round(options.trials / len(NAMES) / options.rounds))
    return [
        Cell(
            "stalled",
            name,
            partial(_trial, stall=stall, bulk=bulk, seconds=seconds),
            times=times,
            proxies_only=True,
            calm=True,
        )
        for name, (stall, bulk) in NAMES.items()
    ]


def _trial(path: BenchPath, *, stall: str, bulk: str, seconds: float) -> Values:
    phases = [
        Phase(0.1, SMALL, warm=True),
        Phase(seconds, SMALL),
        Phase(seconds, f"{SMALL},{stall}=1"),
        Phase(0.15, f"{SMALL},{bulk}=1", warm=True),
        Phase(seconds, f"{SMALL},{stall}=1"),
    ]
    without, beside, after_abort = load(path, phases)
    return {
        "without_p99_us": without.p99_us,
        **_compared("beside", beside, without),
        **_compared("after_abort", after_abort, without),
    }


def _compared(prefix: str, figures: Figures, without: Figures) -> Values:
    return {
        f"{prefix}_p99_us": figures.p99_us,
        f"{prefix}_ratio": figures.p99_us / max(without.p99_us, 1.0),
        f"{prefix}_max_us": figures.max_us,
        f"{prefix}_stuck": float(figures.max_us > STALLED_US),
        f"{prefix}_rate": figures.rate,
        "errors": figures.errors,
    }
