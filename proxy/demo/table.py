"""The demo's result as one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from proxy.demo.redis import BenchmarkRun


@dataclass
class ResultRow:
    """All rounds of one way through one kind of connections."""

    way: str
    connections: str
    runs: list[BenchmarkRun] = field(default_factory=list)
    handshakes_avoided: int | None = None
    """In all rounds together; None where nothing avoids any."""
    links: int | None = None
    """TCP connections between the hosts while it ran, the most that ss saw; None if ss could not say."""

    def add(self, measured: BenchmarkRun, links: int | None) -> None:
        self.runs.append(measured)
        self.links = max((count for count in (self.links, links) if count is not None), default=None)

    def median(self) -> BenchmarkRun:
        """The middle of each column by itself."""
        columns = ((run.requests_per_s, run.p50_ms, run.p99_ms) for run in self.runs)
        return BenchmarkRun(*(statistics.median(column) for column in zip(*columns, strict=True)))


def build(rows: Iterable[ResultRow], title: str) -> Table:
    """One line per row; a rule between kinds of connections. Medians over the rounds."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("way")
    table.add_column("connections")
    for heading in ("requests/s", "p50 ms", "p99 ms", "handshakes avoided", "links between hosts"):
        table.add_column(heading, justify="right")
    before = None
    for row in rows:
        if before is not None and row.connections != before:
            table.add_section()
        before = row.connections
        table.add_row(*cells(row))
    return table


def cells(row: ResultRow) -> list[str]:
    middle = row.median()
    numbers = [f"{middle.requests_per_s:,.0f}", f"{middle.p50_ms:.2f}", f"{middle.p99_ms:.2f}"]
    return [row.way, row.connections, *numbers, number(row.handshakes_avoided), number(row.links)]


def number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
