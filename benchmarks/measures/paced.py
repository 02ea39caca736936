"""What messages cost that come at a steady rate, less than a machine could carry: the CPU time of the proxies, which
busy polling trades for latency. Without any message: what an idle proxy costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.loadrun import Phase
from benchmarks.measures.cell import Cell, Values, load, message_values
from benchmarks.options import Options
from benchmarks.paths import BenchPath, Variant

CONNECTIONS = 32
RATES = (500, 3_000, 20_000)
"""Messages a second, over all connections."""
ALSO: frozenset[Variant] = frozenset({"no-poll"})
AT_LEAST = 1.0
"""Seconds; shorter measurements of CPU time are noise."""
IDLE = 5.0
"""Seconds, at least, without a message: a look once a second, and a ping, must not fall into a single second."""


def cells(options: Options) -> list[Cell]:
    lengths = {rate: max(AT_LEAST if rate else IDLE, options.seconds) for rate in (None, *RATES)}
    return [
        Cell("paced", name(rate), partial(_paced, rate=rate, seconds=seconds), proxies_only=True, also=ALSO)
        for rate, seconds in lengths.items()
    ]


def name(rate: int | None) -> str:
    return "idle" if rate is None else f"{rate:,} messages/s"


def _paced(path: BenchPath, *, rate: int | None, seconds: float) -> Values:
    pids = path.target().pids
    polled: list[float] = []
    before: list[float] = []

    def begin() -> None:
        if rate is not None:
            polled.extend(path.busy_polled())  # to be asked costs a proxy more than to be idle
        before.extend(map(_cpu_seconds, pids))

    phase = Phase(seconds, f"ping={CONNECTIONS}" if rate else f"idle={CONNECTIONS}")
    figures = load(path, [phase], pace=rate, on_ready=begin)[0]
    values = {**message_values(figures), "core_percent": _percent(map(_cpu_seconds, pids), before, figures.seconds)}
    if polled and (now := path.busy_polled()):
        values["poll_percent"] = _percent(now, polled, figures.seconds)
    return values


def _percent(now: Iterable[float], before: Sequence[float], seconds: float) -> float:
    """Of a core: what both proxies have used since, the mean of both."""
    return 100 * sum(used - then for used, then in zip(now, before, strict=True)) / len(before) / seconds


def _cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, seconds (proc(5), schedstat)."""
    used = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # one that has just ended
            used += int((task / "schedstat").read_text().split()[0])
    return used / 1e9
