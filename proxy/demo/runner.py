"""``hostlane demo``: build two hosts, start everything, measure, show one table, and leave nothing behind."""

from __future__ import annotations

import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from proxy.demo import redis, table
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.processes import DemoError
from proxy.demo.redis import Measured
from proxy.demo.stage import Stage, on_loopback, on_two_hosts
from proxy.demo.table import Row
from proxy.demo.ways import Kind, Way, measure
from proxy.errors import HostlaneError

KINDS = (
    Kind("persistent", persistent=True, requests=60_000),
    Kind("new per request", persistent=False, requests=4_000),
)
"""4,000 new connections x ROUNDS stay well below the 28,000 local ports, which TIME_WAIT holds for a minute each: close
to that, connect() searches for a free one so long that the direct ways looked nearly 20 times slower than they are."""
ROUNDS = 3
"""Every way once per round, so that a slow moment of the machine does not hit one way alone."""
BUDGET_S = 35.0
"""No new round begins after this time: the whole demo stays under a minute on a slow machine too."""

CAPTION = (
    "Medians of {rounds} rounds: SET of 64 bytes, {clients} clients at once. Links: TCP connections between the hosts "
    "that ss saw during a run. redis-benchmark starts its clock when a connection stands: a TCP handshake is missing "
    "from the direct ways' p50 and p99; requests/s has it."
)


class Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack as KeyboardInterrupt does."""


def main(kinds: Sequence[Kind] = KINDS, rounds: int = ROUNDS) -> int:
    """Run the demo, at least one round of it.

    Returns the exit code: 0 if all went right, 1 (with one line on stderr) if not, 130 or 143 after SIGINT or SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    # Python leaves SIGINT ignored when a shell started it in the background; the demo shall end by it all the same.
    before_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            _show(stack, kinds, rounds)
        return 0
    except (HostlaneError, OSError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted; all it had started is gone", 128 + signal.SIGINT)
    except Terminated:
        return _say("terminated; all it had started is gone", 128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, before_int)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _say(line: str, code: int) -> int:
    print(f"hostlane demo: {line}", file=sys.stderr)  # noqa: T201
    return code


def _show(stack: ExitStack, kinds: Sequence[Kind], rounds: int) -> None:
    """The whole demo. What it starts ends with ``stack``. Raises HostlaneError when something does not work."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if (why_not := redis.missing()) is not None:
        raise DemoError(why_not)
    stage = _build(console, stack)
    stage.configure()
    console.print(f"One proxy per host, which reads one YAML file: {stage.near.file.name} has\n")
    _quote(console, stage.near.file.read_text())
    for said in stage.make_interfaces():
        _quote(console, said)
    stage.start()
    console.print("Both proxies run, and a Redis server on host B. A client on host A calls it so:")
    console.print(f"    redis-cli -s {stage.socket}")
    console.print(stage.prove())
    rows = run_rounds(stage, kinds, rounds, deadline=time.monotonic() + BUDGET_S)
    console.print()
    console.print(table.build(rows, "Redis on host B, called from host A"))
    console.print(CAPTION.format(rounds=len(rows[0].runs), clients=kinds[0].clients))
    console.print()
    console.print("$ hostlane explain redis")
    console.print(stage.explain(), soft_wrap=True, markup=False, end="")


def _quote(console: Console, text: str) -> None:
    """Indented, with an empty line behind; nothing in it is taken for markup."""
    console.print(textwrap.indent(text, "    "), soft_wrap=True, markup=False)


def _build(console: Console, stack: ExitStack) -> Stage:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostlane-demo-")))
    why_not = Lab.missing()
    if why_not is None:
        console.print("Two hosts in network namespaces, joined by veth cables; nothing else of them is there yet.")
        return on_two_hosts(stack.enter_context(Lab(interfaces=False)), folder)
    console.print(f"Two proxies on this machine's loopback. Why not two hosts: {why_not}.")
    console.print("Left out: the macvlan link, and the ways over macvlan and Docker's bridge + NAT to compare with.")
    return on_loopback(stack.enter_context(Loopback()), folder)


def _run(stage: Stage, way: Way, kind: Kind) -> tuple[Measured, int | None]:
    """One run. When a process of the stage has died meanwhile, that is the error, not what the run made of it."""
    try:
        return measure(way, kind)
    finally:
        stage.check()


def run_rounds(stage: Stage, kinds: Sequence[Kind], rounds: int, deadline: float) -> list[Row]:
    """Measure every way and kind, once a round, until all rounds are done or ``deadline`` (time.monotonic) has passed.

    Raises DemoError when a run fails or a process of the stage dies.
    """
    rows = [Row(way.name, kind.name) for kind in kinds for way in stage.ways]
    pairs = [(way, kind) for kind in kinds for way in stage.ways]
    for _ in range(rounds):
        for row, (way, kind) in zip(rows, pairs, strict=True):
            before = stage.handshakes_avoided() if way.through_mesh else None
            row.add(*_run(stage, way, kind))
            if before is not None:
                row.handshakes_avoided = (row.handshakes_avoided or 0) + stage.handshakes_avoided() - before
        if time.monotonic() > deadline:
            break
    return rows
