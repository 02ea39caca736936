"""What is measured, as a plan: a list of cells, each of which is tried on every path."""

from __future__ import annotations

from benchmarks.measures import bulk, idle, messages, paced, stalled, storm
from benchmarks.measures.cell import Cell
from benchmarks.options import Options

__all__ = ["Cell", "plan"]

_PLANS = {
    "persistent": messages.persistent,
    "connect": messages.connect,
    "connect-after-bulk": messages.connect_after_bulk,
    "links": messages.links,
    "bulk": bulk.alone,
    "mixed": bulk.mixed,
    "shaped": bulk.shaped,
    "stalled": stalled.cells,
    "idle": idle.cells,
    "paced": paced.cells,
    "storm": storm.cells,
}


def plan(options: Options) -> list[Cell]:
    return [cell for measure in options.measures for cell in _PLANS[measure](options)]
