"""One thing to measure on one path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import loadrun
from benchmarks.loadrun import Figures, Phase
from benchmarks.paths import BenchPath, Variant

Values = dict[str, float]


@dataclass(frozen=True)
class Cell:
    measure: str
    name: str
    """Unique within the measure; the row of the table."""
    run: Callable[[BenchPath], Values]
    """Raises BenchError."""
    once: bool = False
    """In the first round only."""
    times: int = 1
    """How often in each round."""
    proxies_only: bool = False
    two_entries: bool = False
    """Only on paths with a second entry."""
    also: frozenset[Variant] = frozenset()
    """Also on the paths of these kinds."""
    fresh: bool = False
    """The path's processes are started anew before."""
    calm: bool = False
    """Each sample waits for an idle machine."""
    shape: str | None = None
    """Rate that the cable is shaped to."""


def load(path: BenchPath, phases: Sequence[Phase], **more: Any) -> list[Figures]:
    return loadrun.run(str(path.bed.programs.load), path.target(), phases, **more)


def message_values(figures: Figures) -> Values:
    return {
        "rate": figures.rate,
        "p50_us": figures.p50_us,
        "p99_us": figures.p99_us,
        "max_us": figures.max_us,
        "cpu_us": figures.cpu_us,
        "busy": figures.busy_us / max(figures.busy_us + figures.idle_us + figures.stolen_us, 1.0),
        "stolen_us": figures.stolen_us,
        "errors": figures.errors,
    }
