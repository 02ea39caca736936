"""How long a scrape keeps the pump from its next turn: ``python -m benchmarks.scrapestall``. One proxy with 5,000
series, nothing else to do, scraped over TCP by a thread. Each step between two checkpoints of the loop is measured,
which is what the pump would have to wait for: CPU time of the thread, which what else runs hardly changes, and by the
clock.

Needs no root and no network namespace.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import trio

from benchmarks.scraping import scrape
from control.base.exposition import Breather
from proxy.agent.agent import Agent
from proxy.config.schema import parse
from proxy.demo.setup import free_ports
from proxy.errors import CloseReason

SERIES = 5000
SCRAPES = 20
PER_SCRAPE = 1e3
"""Milliseconds of a second."""


class Steps(trio.abc.Instrument):
    """Measures each step of any task.

    Attributes:
        cpu, wall: seconds, of each.
    """

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self._began = (time.thread_time(), time.perf_counter())  # of the step that this is made in

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = (time.thread_time(), time.perf_counter())

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.cpu.append(time.thread_time() - self._began[0])
        self.wall.append(time.perf_counter() - self._began[1])


def agent(folder: Path, links: int, port: int) -> Agent:
    """A proxy of its own, scraped at `port`."""
    config = {
        "host": "host-a",
        "run_dir": str(folder / "run"),
        "links": {"listen": f"127.0.0.1:{links}", "security": "none"},
        "telemetry": {"listen": f"127.0.0.1:{port}", "max_series": 2 * SERIES},
        "log": {"level": "error"},
    }
    return Agent(parse(json.dumps(config), "host-a.yaml"))


async def fill(proxy: Agent, series: int) -> int:
    """Count streams of services until a scrape has so many series; how many it has."""
    number, found = 0, 0
    while found < series:
        for _ in range(20):
            number += 1
            count = proxy.stats.counts.stream(f"service-{number}", f"host-{number % 50}", "outbound")
            count.ended[CloseReason.FINISHED] = number
        found = (await proxy.metrics.read(Breather())).series
    return found


async def measure(series: int = SERIES, scrapes: int = SCRAPES) -> list[str]:
    """What to print."""
    said = [f"{'scrape':>8} {'steps':>6} {'longest CPU':>12} {'longest wall':>13} {'all CPU':>9}  (ms)"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hl-")))
        links, port = free_ports(2)
        proxy = agent(folder, links, port)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(proxy.run))
            found = await fill(proxy, series)
            longest: list[tuple[float, float]] = []
            for number in range(scrapes):
                steps = Steps()
                trio.lowlevel.add_instrument(steps)
                size = await trio.to_thread.run_sync(scrape, f"http://127.0.0.1:{port}/metrics", 30.0)
                trio.lowlevel.remove_instrument(steps)
                assert size, "the proxy answers"
                longest.append((max(steps.cpu), max(steps.wall)))
                cpu, wall, whole = (PER_SCRAPE * each for each in (*longest[-1], sum(steps.cpu)))
                said.append(f"{number + 1:>8} {len(steps.cpu):>6} {cpu:>12.3f} {wall:>13.3f} {whole:>9.2f}")
            nursery.cancel_scope.cancel()
    for what, pick in (("longest", max), ("median", median)):
        cpu, wall = (PER_SCRAPE * pick(values) for values in zip(*longest, strict=True))
        said.append(f"{what} of {found} series: CPU {cpu:.3f} ms, wall {wall:.3f} ms between two turns")
    return said


if __name__ == "__main__":
    sys.stdout.write("\n".join(trio.run(measure)) + "\n")
