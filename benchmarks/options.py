"""What was asked for on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PLAIN_PATHS = ("direct", "bridge", "haproxy", "envoy-tcp", "envoy-h2", "hostlane")
MTLS_PATHS = ("haproxy-mtls", "envoy-h2-mtls", "hostlane-mtls")
PATHS = PLAIN_PATHS + MTLS_PATHS
EXTRA_PATHS = ("hostlane-unretained",)
"""Run only if named."""
MEASURES = ("persistent", "connect", "links", "bulk", "mixed", "shaped", "stalled", "idle")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Options:
    measures: tuple[str, ...]
    paths: tuple[str, ...]
    quick: bool
    rounds: int
    seconds: float
    """How long one cell is measured on one path in one round; warming up comes on top."""
    trials: int
    """How often the stalled reader is tried on each path."""
    out: Path
    """Folder that results.json and RESULTS.md go to."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """Raises SystemExit(2) with one line that says what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core of it, in less than three minutes")
    parser.add_argument("--only", type=_choice("measure", MEASURES), metavar=",".join(MEASURES), default=MEASURES)
    parser.add_argument("--paths", type=_choice("path", PATHS + EXTRA_PATHS), metavar=",".join(PATHS))
    parser.add_argument("--rounds", type=int, help="default 5, quick 3")
    parser.add_argument("--seconds", type=float, help="per cell, path and round; default 1, quick 0.4")
    parser.add_argument("--trials", type=int, help="of the stalled reader, per path; default 30, quick 6")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.json and RESULTS.md")
    given = parser.parse_args(argv)
    quick: bool = given.quick
    options = Options(
        measures=given.only,
        paths=given.paths or (PLAIN_PATHS if quick else PATHS),
        quick=quick,
        rounds=given.rounds or (3 if quick else 5),
        seconds=given.seconds or (0.4 if quick else 1.0),
        trials=given.trials or (6 if quick else 30),
        out=given.out,
    )
    if options.rounds < 1 or options.seconds <= 0 or options.trials < 1:
        parser.error("--rounds, --seconds and --trials: more than 0")
    return options


class _choice:
    """Type of an option that takes some of a set of words, separated by commas; keeps the set's order."""

    def __init__(self, what: str, allowed: tuple[str, ...]) -> None:
        self.what = what
        self.allowed = allowed

    def __call__(self, text: str) -> tuple[str, ...]:
        given = text.split(",")
        for word in given:
            if word not in self.allowed:
                raise argparse.ArgumentTypeError(f"{word!r} is no {self.what}; allowed: {', '.join(self.allowed)}")
        return tuple(word for word in self.allowed if word in given)
