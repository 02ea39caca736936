"""The rounds: every round visits every cell, and every cell every path, one right after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from benchmarks import facts, paths
from benchmarks.errors import BenchError
from benchmarks.measures import Cell
from benchmarks.options import OtherBuild
from benchmarks.paths import BenchPath
from benchmarks.results import Results, Sample
from benchmarks.testbed import Testbed

BURST = "32kb"
"""How much a shaped cable lets through at once. A real one sends packet by packet; with more than a segment-offload
packet (64 KiB), small messages would slip through beside bulk that waits for tokens."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


CALM_WITHIN = 3.0
"""Seconds to wait at most for the machine to be idle before a sample that wants it so."""


def calm_down() -> None:
    """Wait until what the last path left behind has gone: a proxy that lets go of stuck streams is busy for a while."""
    deadline = time.monotonic() + CALM_WITHIN
    while facts.machine_busy(0.2) > facts.LOADED and time.monotonic() < deadline:
        pass


class Runner:
    """Fills ``results`` as it goes, so that what was measured before an interruption is not lost."""

    def __init__(
        self, bed: Testbed, results: Results, cells: Iterable[Cell], rounds: int, builds: Sequence[OtherBuild] = ()
    ) -> None:
        self.bed = bed
        self.results = results
        self.cells = list(cells)
        self.rounds = rounds
        self.builds = builds
        self.paths: list[BenchPath] = []

    def start(self) -> None:
        """Start all paths at once, then see that each carries a message; one that does not is left out."""
        for name in self.results.paths:
            path = paths.make(name, self.bed, self.builds)
            if self._attempt(path, path.launch):
                self.paths.append(path)
        self.paths = [path for path in self.paths if self._attempt(path, path.check)]
        for path in self.paths:
            say(f"  {path.name}: ready")

    def run(self) -> None:
        for number in range(self.rounds):
            self._note_load(number)
            for cell in self.cells:
                if number == 0 or not cell.once:
                    self._visit(cell, number)

    def _note_load(self, number: int) -> None:
        """Nothing of ours works between two rounds: what is busy then also disturbed the figures."""
        busy = facts.machine_busy(0.2)
        if busy > facts.LOADED:
            self.results.notes.append(f"before round {number + 1} {busy:.0%} of the CPU was busy with something else")

    def _visit(self, cell: Cell, number: int) -> None:
        turn = number % max(len(self.paths), 1)
        order = [path for path in self.paths[turn:] + self.paths[:turn] if _takes_part(path, cell)]
        if not order:
            return
        begun = time.monotonic()
        if cell.shape:
            self.bed.lab.shape(cell.shape, burst=BURST)
        try:
            samples = [self._sample(cell, path, number) for _ in range(cell.times) for path in order]
        finally:
            if cell.shape:
                self.bed.lab.unshape()
        said = "  ".join(f"{s.path} {_brief(s)}" for s in samples[-len(order) :])
        say(f"round {number + 1}/{self.rounds} {cell.measure} {cell.name}: {said}  ({time.monotonic() - begun:.1f} s)")

    def _sample(self, cell: Cell, path: BenchPath, number: int) -> Sample:
        if path not in self.paths:  # failed for good a moment ago
            return Sample(cell.measure, cell.name, path.name, number, error=self.results.failures[path.name])
        try:
            if cell.calm:
                calm_down()
            if cell.fresh:
                self._restart(path)
            sample = Sample(cell.measure, cell.name, path.name, number, cell.run(path))
        except BenchError as error:
            sample = Sample(cell.measure, cell.name, path.name, number, error=str(error))
            self._revive(path)
        self.results.samples.append(sample)
        return sample

    def _revive(self, path: BenchPath) -> None:
        """After a failure: the next cell gets a path that works, or the path is left out from here on."""
        try:
            path.check(within=3)
        except BenchError:
            if not self._attempt(path, lambda: self._restart(path)):
                self.paths.remove(path)

    def _restart(self, path: BenchPath) -> None:
        path.stop()
        path.launch()
        path.check()

    def _attempt(self, path: BenchPath, action: Callable[[], None]) -> bool:
        try:
            action()
        except BenchError as error:
            self.results.failures[path.name] = str(error)
            say(f"  {path.name}: left out: {error}")
            path.stop()
            return False
        return True


def _takes_part(path: BenchPath, cell: Cell) -> bool:
    if cell.two_entries and path.second_entry is None:
        return False
    return (path.proxied or not cell.proxies_only) and (path.variant is None or path.variant in cell.also)


_BRIEF = ("rate", "mb_per_s", "links", "bytes_per_stream_9500", "after_abort_ratio")


def _brief(sample: Sample) -> str:
    if sample.error:
        return f"FAILED ({sample.error})"
    for metric in _BRIEF:
        if metric in sample.values:
            return f"{sample.values[metric]:,.{0 if sample.values[metric] >= 100 else 2}f}"
    return "ok"
