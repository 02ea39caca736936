"""The demo's one table."""

from __future__ import annotations

import io

from rich.console import Console

from proxy.demo import table
from proxy.demo.redis import BenchmarkRun
from proxy.demo.table import ResultRow


def row(way: str, connections: str, *speeds: float) -> ResultRow:
    made = ResultRow(way, connections)
    for speed in speeds:
        made.add(BenchmarkRun(speed, speed / 1000, speed / 100), None)
    return made


def test_median_of_each_column() -> None:
    made = ResultRow("mesh", "persistent", [BenchmarkRun(1, 30, 5), BenchmarkRun(3, 10, 6), BenchmarkRun(2, 20, 7)])
    assert made.median() == BenchmarkRun(2, 20, 6)


def test_links_are_the_most_that_were_seen() -> None:
    made = ResultRow("direct", "persistent")
    for seen in (None, 49, 50, None):
        made.add(BenchmarkRun(1, 1, 1), seen)
    assert made.links == 50
    assert len(made.runs) == 4


def test_cells() -> None:
    made = row("mesh", "persistent", 12345.6)
    assert table.cells(made) == ["mesh", "persistent", "12,346", "12.35", "123.46", "-", "-"]
    made.handshakes_avoided, made.links = 11_999, 1
    assert table.cells(made)[-2:] == ["11,999", "1"]


def test_the_table_has_every_row_and_fits_an_ordinary_width() -> None:
    output = io.StringIO()
    rows = [row("Hostlane, Unix socket", "persistent", 5), row("direct, bridge + NAT", "new per request", 4)]
    Console(file=output, width=120).print(table.build(rows, "Redis"))
    lines = output.getvalue().splitlines()
    assert lines[0].strip() == "Redis"
    assert [line for line in lines if "direct, bridge + NAT" in line and "new per request" in line]
    assert "…" not in output.getvalue()
    assert sum(line.startswith("├") for line in lines) == 1, "one rule between the kinds of connections"
