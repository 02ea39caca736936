"""What messages cost that come at a steady rate, less than a machine could carry: the CPU time of the proxies, which
busy polling trades for latency. Without any message: what an idle proxy costs.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.loadrun import Phase
from benchmarks.measures.cell import Cell, Values, load, message_values
from benchmarks.options import Options
from benchmarks.paths import BenchPath

CONNECTIONS = 32
RATES = (500, 3_000, 20_000)
"""Messages a second, over all connections."""
AT_LEAST = 1.0
"""Seconds; shorter measurements of CPU time are noise."""


def cells(options: Options) -> list[Cell]:
    seconds = max(AT_LEAST, options.seconds)
    return [Cell("paced", "idle", partial(_paced, rate=None, seconds=seconds), proxies_only=True)] + [
        Cell("paced", f"{rate:,} messages/s", partial(_paced, rate=rate, seconds=seconds), proxies_only=True)
        for rate in RATES
    ]


def _paced(path: BenchPath, *, rate: int | None, seconds: float) -> Values:
    pids = path.target().pids
    before: list[float] = []
    phase = Phase(seconds, f"ping={CONNECTIONS}" if rate else f"idle={CONNECTIONS}")
    figures = load(path, [phase], pace=rate, on_ready=lambda: before.extend(map(_cpu_seconds, pids)))[0]
    used = sum(_cpu_seconds(pid) - then for pid, then in zip(pids, before, strict=True))
    return {**message_values(figures), "core_percent": 100 * used / len(pids) / figures.seconds}


def _cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, seconds (proc(5), schedstat)."""
    used = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # one that has just ended
            used += int((task / "schedstat").read_text().split()[0])
    return used / 1e9
