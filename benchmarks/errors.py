"""The one error of the benchmarks: something cannot be measured, and the text says why in one line."""

from __future__ import annotations


class BenchError(Exception):
    """A program is missing, a path does not work, or a run of the load client failed."""
