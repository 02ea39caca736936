"""Metrics as Prometheus reads them: families of numbers in, OpenMetrics 1.0 or the text format 0.0.4 out.

Who asks must not make others wait: both `Readings` and the text are made piece by piece, and `Breather` lets other
tasks of the process run in between.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import trio

from control.base.histogram import Histogram

__all__ = ["OPENMETRICS", "OTHER", "TEXT", "Breather", "Family", "Labels", "Readings", "encoded", "lines",
           "uncollected"]  # fmt: skip

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The two content types."""
OTHER = "other"
"""The value of a label that stands for all that are too many."""
BREATH = 0.0003
"""Seconds of work between two breaths; what has begun then is finished. Together less than the 1 ms that calls may
wait."""
BATCH = 16
"""Lines between two looks at the clock."""

Labels = tuple[str, ...]
"""The values of a family's labels, in their order."""
Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, eq=False)
class Family:
    """What one metric is.

    Attributes:
        name: without the endings ``_total``, ``_bucket``...; it ends in the unit.
        text: one line for people; labels: their names.
        most: of several readings with the same labels the largest counts; False: their sum.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    most: bool = False

    @property
    def full_name(self) -> str:
        """As it is asked for, without the endings of a histogram."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


class _Sum:
    """A histogram's counts, added up."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...], counts: list[int], total: float) -> None:
        self.bounds, self.counts, self.total = bounds, counts, total


class Readings:
    """What was read of all families at one time.

    Attributes:
        numbers, histograms: by family and labels.
    """

    def __init__(self) -> None:
        self.numbers: dict[Family, dict[Labels, float]] = {}
        self.histograms: dict[Family, dict[Labels, _Sum]] = {}

    def add(self, family: Family, value: float, *labels: str) -> None:
        """Add a number to what was read with these labels (`Family.most`)."""
        found = self.numbers.setdefault(family, {})
        before = found.get(labels)
        if before is None:
            found[labels] = value
        else:
            found[labels] = max(before, value) if family.most else before + value

    def distribution(self, family: Family, histogram: Histogram, *labels: str) -> None:
        """Add a histogram to what was read with these labels. All of a family have the same bounds."""
        self.buckets(family, histogram.bounds, histogram.counts, histogram.total, labels)

    def buckets(
        self, family: Family, bounds: tuple[float, ...], counts: Iterable[int], total: float, labels: Labels
    ) -> None:
        """As `distribution`, of the numbers of one."""
        found = self.histograms.setdefault(family, {})
        before = found.get(labels)
        if before is None:
            found[labels] = _Sum(bounds, list(counts), total)
        else:
            before.counts = [one + more for one, more in zip(before.counts, counts, strict=True)]
            before.total += total

    @property
    def series(self) -> int:
        """How many there are."""
        return sum(map(len, self.numbers.values())) + sum(
            len(found) * (len(next(iter(found.values())).counts) + 2) for found in self.histograms.values() if found
        )


class Breather:
    """Lets other tasks run when whoever works has done so for BREATH.

    Attributes:
        longest: seconds of the longest piece of work so far.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = perf_counter()

    async def breathe(self) -> None:
        """A checkpoint if one is due."""
        if perf_counter() - self._since > BREATH:
            await self.pause()

    async def pause(self) -> None:
        """A checkpoint: what follows takes as long as BREATH by itself."""
        self.longest = max(self.longest, perf_counter() - self._since)
        await trio.lowlevel.checkpoint()
        self._since = perf_counter()


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's garbage collector waits meanwhile: what a scrape makes by the thousand is no garbage, lives for some
    milliseconds, and takes the collector as long as several breaths to look through.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def lines(readings: Readings, families: Iterable[Family], openmetrics: bool) -> Iterator[str]:
    """The text, line by line, in the order of the families. Those without a reading are left out. What has been told is
    taken out of `readings`, as freeing all of it at once would take longer than a breath.
    """
    for family in families:
        numbers = readings.numbers.pop(family, {})
        histograms = readings.histograms.pop(family, {})
        if not numbers and not histograms:
            continue
        yield _head(family, openmetrics)
        name = family.full_name
        for labels, value in numbers.items():
            yield f"{name}{_labels(family, labels)} {_number(value)}\n"
        for labels, found in histograms.items():
            yield from _histogram(family, labels, found)
    if openmetrics:
        yield "# EOF\n"


async def encoded(parts: Iterable[str], breather: Breather) -> bytes:
    """The lines as one piece, made with breaths in between."""
    found, batch = [], []
    for line in parts:
        batch.append(line)
        if len(batch) == BATCH:
            found.append("".join(batch).encode())
            batch.clear()
            await breather.breathe()
    found.append("".join(batch).encode())
    await breather.pause()
    whole = b"".join(found)
    await breather.pause()
    return whole


def _head(family: Family, openmetrics: bool) -> str:
    name, kind = (family.name, family.kind) if openmetrics else (family.full_name, _TEXT_KINDS[family.kind])
    unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {name} {family.text}\n# TYPE {name} {kind}\n{unit}"


_TEXT_KINDS = {"counter": "counter", "gauge": "gauge", "histogram": "histogram", "info": "gauge"}
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def _labels(family: Family, values: Labels) -> str:
    if not values:
        return ""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, values, strict=True)]
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value if value.isidentifier() else value.translate(_ESCAPES)


def _histogram(family: Family, labels: Labels, found: _Sum) -> Iterator[str]:
    text, so_far = _labels(family, labels), 0
    inner = f"{text[1:-1]}," if text else ""
    for bound, count in zip(found.bounds, found.counts[:-1], strict=True):
        so_far += count
        yield f'{family.name}_bucket{{{inner}le="{_number(bound)}"}} {so_far}\n'
    so_far += found.counts[-1]
    yield f'{family.name}_bucket{{{inner}le="+Inf"}} {so_far}\n'
    yield f"{family.name}_sum{text} {_number(found.total)}\n"
    yield f"{family.name}_count{text} {so_far}\n"


def _number(value: float) -> str:
    """As Prometheus and Go write it; a whole number without a point, but a bound with one, as OpenMetrics wants it."""
    return str(value) if isinstance(value, int) else repr(float(value))
