"""``python -m benchmarks``: measure, then write results.json and RESULTS.md.

Exit code: 0 measured (whether or not the promises are met), 1 nothing could be measured, 2 usage.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import NoReturn

from benchmarks import facts, report, results
from benchmarks.build import build
from benchmarks.contract import verdicts
from benchmarks.errors import BenchError
from benchmarks.measures import plan
from benchmarks.options import Options, parse
from benchmarks.results import Results
from benchmarks.runner import Runner, say
from benchmarks.testbed import Testbed
from proxy.demo.lab import Lab


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, _interrupted)
    if why := Lab.missing():
        say(f"benchmarks: {why}")
        return 1
    try:
        return _measure(options)
    except BenchError as error:
        say(f"benchmarks: {error}")
    except KeyboardInterrupt:
        say("benchmarks: interrupted")
    return 1


def _measure(options: Options) -> int:
    programs = build()
    with Testbed(programs) as bed:
        found = Results(
            _command(), facts.collect(bed.cores, options.builds), list(options.paths), [b.name for b in options.builds]
        )
        for name, fact in found.facts.items():
            say(f"{name}: {fact}")
        runner = Runner(bed, found, plan(options), options.rounds, options.builds)
        try:
            runner.start()
            runner.run()
        except KeyboardInterrupt:
            found.notes.append("interrupted: not all rounds were measured")
            raise
        finally:
            _write(found, options)
    return 0 if any(not sample.error for sample in found.samples) else 1


def _write(found: Results, options: Options) -> None:
    if not found.samples:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results.save(found, options.out / "results.json")
    report.write(found, options.out / "RESULTS.md")
    for line in verdicts(found):
        if line.met is not None:
            say(f"{'met    ' if line.met else 'NOT MET'}  {line.promise}: {line.measured}")
    say(f"written: {options.out / 'RESULTS.md'}")


def _command() -> str:
    """What to type to do the same again."""
    given = shlex.join(sys.argv[1:])
    if os.environ.get("MAKELEVEL"):
        quick = [] if "--quick" not in sys.argv else ["QUICK=1"]
        rest = [word for word in sys.argv[1:] if word != "--quick"]
        return " ".join(["make bench", *quick, *([f'ARGS="{shlex.join(rest)}"'] if rest else [])])
    return f"python -m benchmarks {given}".strip()


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
