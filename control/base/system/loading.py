"""Loads what a daemon is made of: all of it at its start, quickly, and for good."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

COLOURS = ("rich", "pygments")
"""What structlog and httpx load if they find it, for tracebacks and a command line that are not ours: a tenth of a
start, and megabytes. It is installed for our own commands that print tables."""


@contextmanager
def for_good(*libraries: str) -> Iterator[None]:
    """Whatever is imported meanwhile stays until the process ends, so Python's collector neither runs while it is nor
    ever looks at it: it would find nothing among 50,000 objects (a tenth of a start), and later every stream would wait
    15 to 30 ms for that, each 10,000 connections or so.

    Args:
        libraries: imported first, each without `COLOURS`.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        _without_colours(libraries)
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


def _without_colours(libraries: tuple[str, ...]) -> None:
    hidden = [name for name in COLOURS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # as if not installed (language reference, 5.3.1)
    try:
        for name in libraries:
            import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]
