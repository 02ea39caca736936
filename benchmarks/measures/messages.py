"""Small messages: on connections that stay, on a new connection each (also after bulk), and the TCP connections that
carry them.
"""

from __future__ import annotations

from functools import partial

from benchmarks.loadrun import Phase
from benchmarks.measures.cell import Cell, Values, load, message_values
from benchmarks.options import Options
from benchmarks.paths import BenchPath, Variant

WARM = 0.2
"""Seconds of the same traffic before the figures count."""
BULK = 0.5
"""Seconds of a stream at full speed each way: enough for a hundred megabytes, and for links that fill up."""
ALSO: dict[Variant, set[tuple[str, int, int]]] = {
    "mtls": {("ping", 64, 128), ("req", 64, 16)},
    "no-poll": {("ping", 64, 1), ("ping", 64, 16)},
    "container": {("ping", 64, 1), ("ping", 64, 16), ("ping", 64, 128), ("req", 64, 1), ("req", 64, 16)},
    "floor": {(kind, 64, count) for kind in ("ping", "req") for count in (1, 4, 16, 128, 1024)},
}
"""Kind, size and count of what is also measured on the paths of these kinds. With mutual TLS: where the peers' cost of
it shows, in each message's records, and in a handshake for each connection."""


def persistent(options: Options) -> list[Cell]:
    sizes, counts = ((64,), (16, 128, 1024)) if options.quick else ((64, 1024), (1, 4, 16, 128, 1024))
    return [_cell("persistent", "ping", size, count, options) for size in sizes for count in counts]


def connect(options: Options) -> list[Cell]:
    sizes, counts = ((64,), (16, 128)) if options.quick else ((64, 1024), (1, 16, 128))
    return [_cell("connect", "req", size, count, options) for size in sizes for count in counts]


def connect_after_bulk(options: Options) -> list[Cell]:
    """On processes that have just been started, so that what is measured before the bulk phase is before any bulk.
    Starting them takes longest: ``--quick`` does it in one round and with one count only.
    """
    counts = (16,) if options.quick else (1, 16, 128)
    return [
        Cell(
            "connect-after-bulk",
            name(64, count),
            partial(_after_bulk, size=64, count=count, seconds=options.seconds),
            once=options.quick,
            fresh=True,
        )
        for count in counts
    ]


def links(options: Options) -> list[Cell]:
    return [Cell("links", "128 connections", _count_links, once=True)]


def _cell(measure: str, kind: str, size: int, count: int, options: Options) -> Cell:
    run = partial(_messages, kind=kind, size=size, count=count, seconds=options.seconds)
    also = frozenset(variant for variant, cells in ALSO.items() if (kind, size, count) in cells)
    return Cell(measure, name(size, count), run, also=also)


def name(size: int, count: int) -> str:
    return f"{size} B × {count}"


def _messages(path: BenchPath, *, kind: str, size: int, count: int, seconds: float) -> Values:
    what = f"{kind}={count}"
    return message_values(load(path, [Phase(WARM, what, warm=True), Phase(seconds, what)], size=size)[0])


def _after_bulk(path: BenchPath, *, size: int, count: int, seconds: float) -> Values:
    calls = f"req={count}"
    phases = [
        Phase(WARM, calls, warm=True),
        Phase(seconds, calls),
        Phase(BULK, "bulk=1,source=1", warm=True),
        Phase(WARM, calls, warm=True),
        Phase(seconds, calls),
    ]
    before, after = (message_values(figures) for figures in load(path, phases, size=size))
    return {
        **after,
        **{f"before_{key}": before[key] for key in ("rate", "cpu_us")},
        "after_ratio": after["rate"] / max(before["rate"], 1.0),
        "after_cpu_ratio": after["cpu_us"] / max(before["cpu_us"], 1.0),
        "errors": before["errors"] + after["errors"],
    }


def _count_links(path: BenchPath) -> Values:
    counted: list[int] = []
    load(path, [Phase(0.5, "ping=128")], on_ready=lambda: counted.append(path.links()))
    return {"links": counted[0]}
