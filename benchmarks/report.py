"""RESULTS.md: the tables of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contract import Verdict, verdicts
from benchmarks.options import HOSTLANE as US
from benchmarks.options import HOSTLANE_MTLS as US_MTLS
from benchmarks.results import Results

REFERENCE = "haproxy"


@dataclass(frozen=True)
class Table:
    measure: str
    title: str
    metric: str
    form: str = ",.0f"


TABLES = (
    Table("persistent", "Persistent connections: round trips/s", "rate"),
    Table("persistent", "Persistent connections: p50, µs", "p50_us"),
    Table("persistent", "Persistent connections: p99, µs", "p99_us"),
    Table("persistent", "Persistent connections: CPU of the whole machine, µs per round trip", "cpu_us", ",.1f"),
    Table("connect", "A new connection per request: requests/s", "rate"),
    Table("connect", "A new connection per request: p50, µs", "p50_us"),
    Table("connect", "A new connection per request: p99, µs", "p99_us"),
    Table("connect", "A new connection per request: CPU of the whole machine, µs per request", "cpu_us", ",.1f"),
    Table("connect-after-bulk", "A new connection per request, after a bulk phase: requests/s", "rate"),
    Table("connect-after-bulk", "The same: p50, µs", "p50_us"),
    Table("connect-after-bulk", "The same: CPU of the whole machine, µs per request", "cpu_us", ",.1f"),
    Table("connect-after-bulk", "The same: requests/s, × before (median over the rounds)", "after_ratio", ".2f"),
    Table(
        "connect-after-bulk", "The same: CPU per request, × before (median over the rounds)", "after_cpu_ratio", ".2f"
    ),
    Table("links", "TCP connections between the hosts", "links"),
    Table("bulk", "One stream at full speed: MB/s", "mb_per_s"),
    Table("mixed", "16 connections, 64 B, beside a full-speed stream: p50, µs", "p50_us"),
    Table("mixed", "The same: p99, µs", "p99_us"),
    Table("mixed", "The same: round trips/s", "rate"),
    Table("mixed", "The same: MB/s of the stream", "mb_per_s"),
    Table("mixed", "The same connections without the stream: p50, µs", "alone_p50_us"),
    Table("shaped", "Beside a full-speed stream on a cable of 1 Gbit/s: p50, µs", "p50_us"),
    Table("shaped", "The same: p99, µs", "p99_us"),
    Table("shaped", "The same: MB/s of the stream", "mb_per_s"),
    Table("shaped", "The same connections without the stream: p50, µs", "alone_p50_us"),
    Table("stalled", "16 connections, 64 B, without a stalled stream: p99, µs", "without_p99_us"),
    Table(
        "stalled", "Beside a stream whose reader stopped: p99, × without (median of the trials)", "beside_ratio", ".2f"
    ),
    Table("stalled", "The same, opened as a full-speed stream is aborted: p99, × without", "after_abort_ratio", ".2f"),
    Table("paced", "32 connections, a steady rate: CPU of a proxy, % of a core (mean of both)", "core_percent", ".1f"),
    Table("paced", "The same: what busy polling took of that, % of a core", "poll_percent", ".1f"),
    Table("paced", "The same: p50, µs", "p50_us"),
    Table("paced", "The same: messages/s", "rate"),
    Table("storm", "4 connections, 64 B, while others connect and close at another entry: p50, µs", "p50_us"),
    Table("storm", "The same: p99, µs", "p99_us"),
    Table("storm", "Beside the same storm on a service of that host: p50, µs", "beside_p50_us"),
    Table("storm", "The same connections without any storm: p50, µs", "calm_p50_us"),
    Table("storm", "p50 with the storm through the path, × beside it (median over the rounds)", "storm_ratio", ".2f"),
    Table("idle", "Memory of both proxies per idle stream, bytes: 1,000 streams", "bytes_per_stream_1000"),
    Table("idle", "Memory of both proxies per idle stream, bytes: 9,500 streams", "bytes_per_stream_9500"),
    Table("idle", "Memory of proxy A with 1 stream, MB", "rss_a_0_mb", ",.1f"),
    Table("idle", "Memory of proxy A with 9,500 idle streams, MB", "rss_a_9500_mb", ",.1f"),
    Table("idle", "Memory of proxy B with 9,500 idle streams, MB", "rss_b_9500_mb", ",.1f"),
)


def write(results: Results, file: Path) -> None:
    file.write_text(render(results))


def render(results: Results) -> str:
    return (
        "\n".join(
            [*_header(results), *_contract(verdicts(results)), *_tables(results), *_stuck(results), *_failures(results)]
        )
        + "\n"
    )


def _header(results: Results) -> Iterator[str]:
    yield "# Side by side"
    yield ""
    yield f"Made by `{results.command}`. In each field: the median over the rounds, then its ratio to HAProxy"
    yield "(median of the ratios within a round). What is measured and how: [README.md](README.md)."
    if results.builds:
        yield f"Other builds of Hostlane ({', '.join(results.builds)}) have their ratio to `{US}` behind that."
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, fact in results.facts.items():
        yield f"| {name} | {fact} |"
    for note in results.notes:
        yield f"| note | {note} |"
    yield ""


def _contract(lines: list[Verdict]) -> Iterator[str]:
    yield "## The contract"
    yield ""
    yield "| promised | measured | |"
    yield "|---|---|---|"
    words = {True: "met", False: "**not met**", None: "–"}
    for line in lines:
        yield f"| {line.promise} | {line.measured} | {words[line.met]} |"
    yield ""


def _tables(results: Results) -> Iterator[str]:
    for table in TABLES:
        cells = results.cells(table.measure)
        if cells:
            yield f"## {table.title}"
            yield ""
            yield "| | " + " | ".join(results.paths) + " |"
            yield "|---" * (len(results.paths) + 1) + "|"
            for cell in cells:
                fields = [_field(results, table, cell, path) for path in results.paths]
                yield f"| {cell} | " + " | ".join(fields) + " |"
            yield ""


def _field(results: Results, table: Table, cell: str, path: str) -> str:
    value = results.median(table.measure, cell, path, table.metric)
    if value is None:
        return "failed" if results.error(table.measure, cell, path) else "–"
    text = format(value, table.form)
    if table.metric.endswith("_ratio"):
        return text
    for other, unit in ((REFERENCE, "×"), (US, f"× {US}"), (US_MTLS, f"× {US_MTLS}")):
        if path != other and (other == REFERENCE or path in results.others(other)):
            ratio = results.ratio(table.measure, cell, path, table.metric, to=other)
            text += "" if ratio is None else f" · {ratio:.2f}{unit}"
    return text


def _stuck(results: Results) -> Iterator[str]:
    """Trials of the stalled reader in which a message was stuck, by path."""
    cells = results.cells("stalled")
    if not cells:
        return
    yield "## Trials of the stalled reader in which a message waited longer than 100 ms"
    yield ""
    yield "| | " + " | ".join(results.paths) + " |"
    yield "|---" * (len(results.paths) + 1) + "|"
    for cell in cells:
        for kind, words in (("beside", "beside it"), ("after_abort", "after an abort")):
            counts = [results.values("stalled", cell, path, f"{kind}_stuck") for path in results.paths]
            fields = [f"{sum(stuck):.0f} of {len(stuck)}" if stuck else "–" for stuck in counts]
            yield f"| {cell}, {words} | " + " | ".join(fields) + " |"
    yield ""


def _failures(results: Results) -> Iterator[str]:
    failed = list(dict.fromkeys((s.path, s.measure, s.cell, s.error) for s in results.samples if s.error))
    broken = _broken(results)
    if not failed and not results.failures and not broken:
        return
    yield "## What failed"
    yield ""
    for path, why in results.failures.items():
        yield f"- {path}: {why}"
    for path, measure, cell, error in failed:
        if error != results.failures.get(path):
            yield f"- {path}, {measure}, {cell}: {error}"
    for (path, measure, cell), count in broken.items():
        yield f"- {path}, {measure}, {cell}: {count} connections broke and were made again"
    yield ""


def _broken(results: Results) -> Counter[tuple[str, str, str]]:
    """Connections that broke in cells that went on all the same."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for sample in results.samples:
        if errors := int(sample.values.get("errors", 0)):
            counted[sample.path, sample.measure, sample.cell] += errors
    return counted
