"""``hostlane demo``: build two hosts, have them join a mesh, measure, show one table, and leave nothing behind."""

from __future__ import annotations

import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from proxy.demo import redis, table
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.paths import DemoPath, Workload, measure
from proxy.demo.processes import SIGNALS, DemoError, signals_held
from proxy.demo.redis import BenchmarkRun
from proxy.demo.setup import DemoSetup, on_loopback, on_two_hosts
from proxy.demo.table import ResultRow
from proxy.errors import HostlaneError

KINDS = (
    Workload("persistent", persistent=True, requests=60_000),
    Workload("new per request", persistent=False, requests=4_000),
)
"""4,000 new connections x ROUNDS stay well below the 28,000 local ports, which TIME_WAIT holds for a minute each: close
to that, connect() searches for a free one so long that the direct ways looked nearly 20 times slower than they are."""
ROUNDS = 3
"""Every way once per round, so that a slow moment of the machine does not hit one way alone."""
BUDGET_S = 45.0
"""From the start of the demo. No round begins, after the first, that would end later if it took as long as the one
before: the whole demo stays under a minute on a slow machine too."""

CAPTION = (
    "Medians of {rounds}: SET of 64 bytes, {clients} clients at once. Links: TCP connections between the hosts "
    "that ss saw during a run. Hostlane's are mutual TLS 1.3, the direct ways are plain TCP. redis-benchmark starts "
    "its clock when a connection stands: a TCP handshake is missing from the direct ways' p50 and p99; requests/s "
    "has it."
)


class Stopped(BaseException):
    """A signal arrived; unwinds the stack as KeyboardInterrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class SignalUnwinder:
    """Handler of signals: the first one raises `Stopped`. Those after it change nothing: the demo ends already."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.done:
            self.done = True
            raise Stopped(number)


def main(kinds: Sequence[Workload] = KINDS, rounds: int = ROUNDS) -> int:
    """Run the demo, at least one round of it.

    Returns the exit code: 0 if all went right, 1 (with one line on stderr) if not, 130 or 143 after SIGINT or SIGTERM.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    unwinding = SignalUnwinder()
    try:
        _listen(unwinding)
        with ExitStack() as stack:
            try:
                _show(stack, kinds, rounds)
            finally:
                unwinding.done = True
        return 0
    except (HostlaneError, OSError) as error:
        return _say(str(error), 1)
    except Stopped as stopped:
        what = "interrupted" if stopped.number == signal.SIGINT else "terminated"
        return _say(f"{what}; all it had started is gone", 128 + stopped.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        # Python leaves SIGINT ignored when a shell started it in the background; the demo shall end by it all the same.
        # What nohup has ignored stays so.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _say(line: str, code: int) -> int:
    print(f"hostlane demo: {line}", file=sys.stderr)  # noqa: T201
    return code


def _show(stack: ExitStack, kinds: Sequence[Workload], rounds: int) -> None:
    """The whole demo. What it starts ends with ``stack``. Raises HostlaneError when something does not work."""
    began = time.monotonic()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if (why_not := redis.missing()) is not None:
        raise DemoError(why_not)
    with signals_held():  # what is half built would stay
        stage, introduction = _build(stack)
    console.print(introduction)
    stage.configure()
    console.print("A control server on host A, a proxy on each host, a YAML file for each; no host names another:\n")
    for file in (stage.server.file, stage.near.file, stage.far.file):
        _quote(console, f"{file.name}\n{textwrap.indent(file.read_text(), '  ')}")
    for said in stage.make_interfaces():
        _quote(console, said)
    for said in stage.start():
        _quote(console, said)
    console.print("Both have joined, and got certificates for their tokens: the links between them are mutual TLS 1.3.")
    console.print("A Redis server runs on host B; its socket has come to host A, where a client calls it so:")
    console.print(f"    redis-cli -s {stage.socket}")
    console.print("In a browser on this machine, as long as this runs:")
    for what, url in stage.show_pages(stack):
        console.print(f"    {url}  {what}", soft_wrap=True)
    console.print(stage.prove())
    rows = run_rounds(stage, kinds, rounds, deadline=began + BUDGET_S)
    console.print()
    console.print(table.build(rows, "Redis on host B, called from host A"))
    console.print(CAPTION.format(rounds=_rounds(len(rows[0].runs)), clients=kinds[0].clients))
    console.print()
    console.print("$ hostlane explain redis")
    console.print(stage.explain(), soft_wrap=True, markup=False, end="")


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _quote(console: Console, text: str) -> None:
    """Indented, with an empty line behind; nothing in it is taken for markup."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    console.print(textwrap.indent(f"{lines}\n", "    "), soft_wrap=True, markup=False)


def _build(stack: ExitStack) -> tuple[DemoSetup, str]:
    """The hosts, with nothing on them; and what they are, for people."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostlane-demo-")))
    why_not = Lab.missing()
    if why_not is None:
        stage = on_two_hosts(stack.enter_context(Lab(interfaces=False)), folder)
        return stage, "Two hosts in network namespaces, joined by veth cables; nothing else of them is there yet."
    stage = on_loopback(stack.enter_context(Loopback()), folder)
    return stage, (
        f"Two hosts that are both this machine's loopback. Why not two of their own: {why_not}.\n"
        "Left out: the macvlan link, and the ways over macvlan and Docker's bridge + NAT to compare with."
    )


def _run(stage: DemoSetup, way: DemoPath, kind: Workload) -> tuple[BenchmarkRun, int | None]:
    """One run. When a process of the stage has died meanwhile, that is the error, not what the run made of it."""
    try:
        return measure(way, kind)
    finally:
        stage.check()


def run_rounds(stage: DemoSetup, kinds: Sequence[Workload], rounds: int, deadline: float) -> list[ResultRow]:
    """Measure every way and kind, once a round, until all rounds are done or another would end after ``deadline``
    (time.monotonic), judging by the last one.

    Raises DemoError when a run fails or a process of the stage dies.
    """
    rows = [ResultRow(way.name, kind.name) for kind in kinds for way in stage.ways]
    pairs = [(way, kind) for kind in kinds for way in stage.ways]
    for _ in range(rounds):
        began = time.monotonic()
        for row, (way, kind) in zip(rows, pairs, strict=True):
            before = stage.handshakes_avoided() if way.through_mesh else None
            row.add(*_run(stage, way, kind))
            if before is not None:
                row.handshakes_avoided = (row.handshakes_avoided or 0) + stage.handshakes_avoided() - before
        if (now := time.monotonic()) + (now - began) > deadline:
            break
    return rows
