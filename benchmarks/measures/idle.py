"""Memory of the proxies with many streams that do nothing, measured on processes that have just been started."""

from __future__ import annotations

from benchmarks.loadrun import Figures, Phase
from benchmarks.measures.cell import Cell, Values, load
from benchmarks.options import Options
from benchmarks.paths import BenchPath

FEW, MANY = 1000, 9500


def cells(options: Options) -> list[Cell]:
    return [Cell("idle", "fresh processes", _idle, once=True, proxies_only=True, fresh=True)]


def _idle(path: BenchPath) -> Values:
    """Every stream has carried one message and its reply before it is left alone. Bytes per stream: both proxies."""
    phases = [Phase(0.3, "ping=1"), Phase(0.5, f"idle={FEW}"), Phase(0.5, f"idle={MANY}")]
    empty, few, many = load(path, phases, ready_within=30)
    values: Values = {}
    for label, count, figures in (("0", 0, empty), (str(FEW), FEW, few), (str(MANY), MANY, many)):
        for side, kb in zip("ab", figures.rss_kb, strict=True):
            values[f"rss_{side}_{label}_mb"] = kb / 1000
        if count:
            values[f"bytes_per_stream_{label}"] = _per_stream(figures, empty, count)
    return values


def _per_stream(now: Figures, before: Figures, count: int) -> float:
    return (sum(now.rss_kb) - sum(before.rss_kb)) * 1024 / count
