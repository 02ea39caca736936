"""What was asked for on the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PLAIN_PATHS = ("direct", "bridge", "haproxy", "envoy-tcp", "envoy-h2", "hostlane", "hostlane-no-poll", "floor")
CONTAINER_PATHS = ("hostlane-inside", "hostlane-sidecar")
MTLS_PATHS = ("haproxy-mtls", "envoy-h2-mtls", "hostlane-mtls")
PATHS = PLAIN_PATHS + CONTAINER_PATHS + MTLS_PATHS
EXTRA_PATHS = ("hostlane-unretained", "hostlane-scraped", "hostlane-scraped-mtls")
"""Run only if named."""
MEASURES = (
    "persistent", "connect", "connect-after-bulk", "links", "bulk", "mixed", "shaped", "stalled", "idle", "paced",
    "storm",
)  # fmt: skip
HERE = Path(__file__).resolve().parent
HOSTLANE, HOSTLANE_MTLS = "hostlane", "hostlane-mtls"
"""The paths that other builds are put beside and compared with."""

_PROGRAM = "allowed: NAME=PATH[,KEY=VALUE...]"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{,23}")
"""It becomes a folder's name above Unix sockets, whose paths may have 107 characters."""


@dataclass(frozen=True)
class OtherBuild:
    """Another ``hostlane``, measured as a path of that name."""

    name: str
    program: Path
    environment: tuple[tuple[str, str], ...] = ()
    """Set for its proxies, beside what this process has."""

    @property
    def mtls_name(self) -> str:
        """The path with mutual TLS between its hosts."""
        return f"{self.name}-mtls"

    def __str__(self) -> str:
        return ", ".join([str(self.program), *(f"{key}={value}" for key, value in self.environment)])


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
    builds: tuple[OtherBuild, ...] = ()
    """Their names are in ``paths`` too."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """Raises SystemExit(2) with one line that says what is allowed."""
    parser = _Parser(prog="python -m benchmarks", description="Hostlane beside HAProxy, Envoy and no proxy at all.")
    parser.add_argument("--quick", action="store_true", help="the core of it, in less than three minutes")
    parser.add_argument("--only", type=_choice("measure", MEASURES), metavar=",".join(MEASURES), default=MEASURES)
    parser.add_argument("--paths", type=_choice("path", PATHS + EXTRA_PATHS), metavar=",".join(PATHS))
    parser.add_argument(
        "--program",
        type=_other_build,
        action="append",
        default=[],
        metavar="NAME=PATH[,KEY=VALUE...]",
        help="another build of hostlane, as a path of that name in the same rounds: PATH is its executable, say "
        "/tmp/old/.venv/bin/hostlane; KEY=VALUE are set in its environment; repeatable",
    )
    parser.add_argument("--rounds", type=int, help="default 7, quick 3")
    parser.add_argument("--seconds", type=float, help="per cell, path and round; default 1, quick 0.4")
    parser.add_argument("--trials", type=int, help="of the stalled reader, per path; default 30, quick 6")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.json and RESULTS.md")
    given = parser.parse_args(argv)
    quick: bool = given.quick
    builds: list[OtherBuild] = given.program
    names = [build.name for build in builds]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"argument --program: {name!r} is given twice; allowed: a name of its own for each")
        if f"{name}-mtls" in names:
            parser.error(f"argument --program: '{name}-mtls' is what {name!r} with mutual TLS is called")
    options = Options(
        measures=given.only,
        paths=_beside_hostlane(given.paths or (PLAIN_PATHS if quick else PATHS), builds),
        quick=quick,
        rounds=given.rounds or (3 if quick else 7),
        seconds=given.seconds or (0.4 if quick else 1.0),
        trials=given.trials or (6 if quick else 30),
        out=given.out,
        builds=tuple(builds),
    )
    if options.rounds < 1 or options.seconds <= 0 or options.trials < 1:
        parser.error("--rounds, --seconds and --trials: more than 0")
    return options


def _beside_hostlane(paths: tuple[str, ...], builds: Sequence[OtherBuild]) -> tuple[str, ...]:
    """The builds right after ``hostlane``, and after ``hostlane-mtls``, if that is there: they are measured one after
    the other, and read side by side.
    """
    found = list(paths)
    if HOSTLANE_MTLS in found:
        at = found.index(HOSTLANE_MTLS) + 1
        found[at:at] = [build.mtls_name for build in builds]
    at = found.index(HOSTLANE) + 1 if HOSTLANE in found else len(found)
    found[at:at] = [build.name for build in builds]
    return tuple(found)


def _other_build(text: str) -> OtherBuild:
    """Type of ``--program``."""
    name, equals, rest = text.partition("=")
    path, *settings = rest.split(",")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r} names no program; {_PROGRAM}")
    if not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{name!r} is no name; allowed: 1 to 24 of a-z, 0-9 and -, not - first")
    if name in PATHS + EXTRA_PATHS:
        raise argparse.ArgumentTypeError(
            f"{name!r} is a path already; allowed: any name but {', '.join(PATHS + EXTRA_PATHS)}"
        )
    program = Path(path).absolute()
    if not program.is_file() or not os.access(program, os.X_OK):
        what = "cannot be executed" if program.is_file() else "is a folder" if program.is_dir() else "is not there"
        raise argparse.ArgumentTypeError(f"{path!r} {what}; allowed: a build's executable, such as .venv/bin/hostlane")
    environment = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.isidentifier():
            raise argparse.ArgumentTypeError(f"{setting!r} is no setting of the environment; {_PROGRAM}")
        environment.append((key, value))
    return OtherBuild(name, program, tuple(environment))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; the usage, which is longer than a screen is wide, is for ``--help``."""
        self.exit(2, f"{self.prog}: {message}\n")


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
