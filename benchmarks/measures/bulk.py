"""One stream at full speed, alone and beside small messages, on the bare cable and on a shaped one."""

from __future__ import annotations

from functools import partial

from benchmarks.loadrun import Phase
from benchmarks.measures.cell import Cell, Values, load, message_values
from benchmarks.options import Options
from benchmarks.paths import BenchPath

RATE = "1gbit"
SMALL = "ping=16"
WARM = 0.3
"""Seconds until a stream that has just begun counts: TCP finds its speed."""
_DIRECTIONS = {"A to B": "bulk", "B to A": "source"}


def alone(options: Options) -> list[Cell]:
    return [
        Cell("bulk", name, partial(_alone, kind=kind, seconds=options.seconds), also=frozenset({"mtls"}))
        for name, kind in _directions(options).items()
    ]


def mixed(options: Options) -> list[Cell]:
    return _beside("mixed", options, None)


def shaped(options: Options) -> list[Cell]:
    return _beside("shaped", options, RATE)


def _beside(measure: str, options: Options, shape: str | None) -> list[Cell]:
    return [
        Cell(measure, name, partial(_mixed, kind=kind, seconds=options.seconds), shape=shape)
        for name, kind in _directions(options).items()
    ]


def _directions(options: Options) -> dict[str, str]:
    return {"A to B": "bulk"} if options.quick else _DIRECTIONS


def _alone(path: BenchPath, *, kind: str, seconds: float) -> Values:
    figures = load(path, [Phase(WARM, f"{kind}=1", warm=True), Phase(seconds, f"{kind}=1")])[0]
    return {"mb_per_s": figures.megabytes_per_second, "errors": figures.errors}


def _mixed(path: BenchPath, *, kind: str, seconds: float) -> Values:
    both = f"{SMALL},{kind}=1"
    phases = [
        Phase(0.1, SMALL, warm=True),
        Phase(seconds / 2, SMALL),
        Phase(WARM, both, warm=True),
        Phase(seconds, both),
    ]
    before, beside = load(path, phases)
    alone = {f"alone_{key}": value for key, value in message_values(before).items()}
    return {**message_values(beside), **alone, "mb_per_s": beside.megabytes_per_second}
