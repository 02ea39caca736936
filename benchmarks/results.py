"""What was measured: samples, kept as they came, and questions to them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks import stats
from benchmarks.options import HOSTLANE


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    measure: str
    cell: str
    path: str
    round: int
    values: dict[str, float] = {}
    error: str | None = None


class Results(msgspec.Struct):
    command: str
    facts: dict[str, str]
    paths: list[str]
    builds: list[str] = []
    """Those of the paths that are other builds of Hostlane."""
    failures: dict[str, str] = {}
    """Paths that could not be measured at all, and why."""
    samples: list[Sample] = []
    notes: list[str] = []

    def cells(self, measure: str) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(sample.cell for sample in self.samples if sample.measure == measure))

    def of(self, measure: str, cell: str, path: str) -> list[Sample]:
        return [s for s in self.samples if (s.measure, s.cell, s.path) == (measure, cell, path)]

    def values(self, measure: str, cell: str, path: str, metric: str) -> list[float]:
        return [s.values[metric] for s in self.of(measure, cell, path) if metric in s.values]

    def median(self, measure: str, cell: str, path: str, metric: str) -> float | None:
        return stats.median_or_none(self.values(measure, cell, path, metric))

    def ratio(self, measure: str, cell: str, path: str, metric: str, to: str = "haproxy") -> float | None:
        """Median of the rounds' ratios; None when one of the two has no figure."""
        ours, theirs = (self._by_round(measure, cell, name, metric) for name in (path, to))
        return stats.paired_ratio(ours, theirs)

    def difference(self, measure: str, cell: str, path: str, metric: str, to: str) -> float | None:
        """Median of the rounds' differences; None when one of the two has no figure."""
        ours, theirs = (self._by_round(measure, cell, name, metric) for name in (path, to))
        return stats.median_or_none([ours[key] - theirs[key] for key in ours if key in theirs])

    def others(self, path: str) -> list[str]:
        """The paths on which other builds run as ours does on that one."""
        variant = path.removeprefix(HOSTLANE)
        return [build + variant for build in self.builds if build + variant in self.paths]

    def error(self, measure: str, cell: str, path: str) -> str | None:
        """Why there is no figure: the first thing that went wrong."""
        errors = [sample.error for sample in self.of(measure, cell, path) if sample.error]
        return errors[0] if errors else self.failures.get(path)

    def _by_round(self, measure: str, cell: str, path: str, metric: str) -> dict[int, float]:
        return {s.round: s.values[metric] for s in self.of(measure, cell, path) if metric in s.values}


def save(results: Results, file: Path) -> None:
    """JSON with a line for each sample, so that two results can be compared line by line."""
    fields = msgspec.structs.asdict(results)
    samples = [b"  " + msgspec.json.encode(_rounded(sample)) for sample in fields.pop("samples")]
    lines = [b" " + msgspec.json.encode(name) + b": " + msgspec.json.encode(value) for name, value in fields.items()]
    lines.append(b' "samples": [\n' + b",\n".join(samples) + b"\n ]")
    file.write_bytes(b"{\n" + b",\n".join(lines) + b"\n}\n")


def load(file: Path) -> Results:
    return msgspec.json.decode(file.read_bytes(), type=Results)


def _rounded(sample: Sample) -> Sample:
    """To six digits: more than any of these figures means."""
    values = {name: float(f"{value:.6g}") for name, value in sample.values.items()}
    return msgspec.structs.replace(sample, values=values)
