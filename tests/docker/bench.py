"""``make bench-containers``: how long verified traffic is without answers at each restart, on real engines, and what
the ways into a container cost beside each other. Prints the tables of docs/containers.md.

What happens is for test_restarts.py, which asserts it; here it is counted only. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import facts, results
from benchmarks.runner import say
from proxy.demo.lab import CABLE
from tests.docker.engines import EngineHost, missing, two_hosts
from tests.docker.traffic import Traffic, start_server

PAUSED = 2.0
"""Seconds of a pause, of a pulled cable, and without a network."""
PATHS = {
    "hostlane": "Unix socket",
    "hostlane-inside": "listener in the container",
    "hostlane-sidecar": "sidecar",
    "bridge": "Docker's bridge + NAT",
}


class Hosts(NamedTuple):
    a: EngineHost
    b: EngineHost
    traffic: Traffic


@dataclass(frozen=True)
class Row:
    """Something that happens, in the order of the table. `starts`: the container whose start the time counts from."""

    name: str
    happen: Callable[[Hosts], object]
    starts: str = ""


def _recreate(host: EngineHost, name: str, start: Callable[[], object]) -> None:
    host.docker("stop", "--time=10", name)
    host.docker("rm", name)
    start()


def _pause(host: EngineHost, name: str) -> None:
    host.docker("pause", name)
    time.sleep(PAUSED)
    host.docker("unpause", name)


def _pull(host: EngineHost) -> None:
    host.host.cable_down()
    time.sleep(PAUSED)
    host.host.cable_up()


def _take_network(on: Hosts) -> None:
    """Give the client, which has none, a network of the engine's, take that from it, give it again, and take it."""
    for action, network, seconds in (
        ("disconnect", "none", 0.0), ("connect", "lan", PAUSED), ("disconnect", "lan", PAUSED),
        ("connect", "lan", PAUSED), ("disconnect", "lan", 0.0), ("connect", "none", 0.0),
    ):  # fmt: skip
        on.a.docker("network", action, network, "client")
        time.sleep(seconds)


def _restart_engine(on: Hosts) -> None:
    """Its containers end with it, and come back by their policies."""
    names = ("door", "proxy", "server")
    on.b.docker("update", "--restart=always", *names)
    on.b.stop()
    on.b.start(live_restore=False)
    on.b.stop()
    on.b.start()
    on.traffic.flows()
    on.b.docker("update", "--restart=no", *names)


def _renew_server(host: EngineHost) -> None:
    host.docker("rm", "--force", "server")
    start_server(host)


ROWS = (
    Row("`docker restart` of the callers' proxy", lambda on: on.a.docker("restart", "proxy")),
    Row("the same, recreated", lambda on: _recreate(on.a, "proxy", on.a.start_proxy)),
    Row("the same, `kill -9` and start", lambda on: (on.a.docker("kill", "proxy"), on.a.docker("start", "proxy"))),
    Row("`docker restart` of the service's proxy", lambda on: on.b.docker("restart", "proxy")),
    Row("the same, `kill -9` and start", lambda on: (on.b.docker("kill", "proxy"), on.b.docker("start", "proxy"))),
    Row("`docker restart` of a door", lambda on: on.a.docker("restart", "door")),
    Row("`docker restart` of the service", lambda on: on.b.docker("restart", "--time=1", "server"), "server"),
    Row("service recreated", lambda on: _renew_server(on.b), "server"),
    Row("`docker restart` of the client", lambda on: on.a.docker("restart", "--time=1", "client"), "client"),
    Row(f"the service's proxy paused for {PAUSED:g} s", lambda on: _pause(on.b, "proxy")),
    Row(f"cable pulled for {PAUSED:g} s", lambda on: _pull(on.b)),
    Row("engine stopped and started, live-restore", lambda on: (on.b.stop(), on.b.start())),
    Row("engine killed (`kill -9`) and started, live-restore", lambda on: (on.b.kill(), on.b.start())),
    Row("engine of the service's host restarted without it", _restart_engine),
    Row(f"a network taken from the client for {PAUSED:g} s", _take_network),
)


class Seen(NamedTuple):
    """What the traffic saw. Seconds."""

    longest: float
    """That a new connection took, with its answer."""
    failed: int
    """New connections that got no answer."""
    silent: float
    """Between two answers on the connection that is kept, and made again when it is cut."""
    first: float | None
    """From the container's `start` event to the first answer on a new connection."""


def look(row: Row, on: Hosts) -> Seen:
    """Have it happen once."""
    since = on.traffic.flows()
    row.happen(on)
    on.traffic.flows()
    calls = [call for call in on.traffic.calls if call.ended > since]
    good = [call for call in calls if not call.error]
    kept = sorted(call.ended for call in good if call.kind == "kept")
    first = None
    if row.starts:
        began = _started(on.a if row.starts == "client" else on.b, row.starts)
        first = min(call.ended for call in good if call.kind == "new" and call.began > began) - began
    return Seen(
        max(call.took for call in good if call.kind == "new"),
        sum(bool(call.error) and call.kind == "new" for call in calls),
        max(later - earlier for earlier, later in zip([since, *kept], kept, strict=False)),
        first,
    )


def _started(host: EngineHost, name: str) -> float:
    """When a container's latest `start` event was, seconds of the wall clock."""
    filters = ("--filter=event=start", f"--filter=container={name}", "--since=5m", f"--until={time.time():.3f}")
    return int(host.docker("events", *filters, "--format={{.TimeNano}}").splitlines()[-1]) / 1e9


def restarts(rounds: int) -> list[str]:
    """The table of what happens."""
    seen: dict[Row, list[Seen]] = {row: [] for row in ROWS}
    with two_hosts() as (a, b):
        start_server(b)
        a.docker("network", "create", "--driver=macvlan", f"--opt=parent={CABLE}", "--subnet=10.79.0.0/24", "lan")
        on = Hosts(a, b, Traffic(a))
        on.traffic.flows()
        for _ in range(rounds):
            for row, found in seen.items():
                found.append(look(row, on))
                say(f"  {row.name}: {found[-1]}")
    lines = [
        "| event | new connection took at most, s | got no answer | kept connection silent for, s | from `start`, s |",
        "|---|---|---|---|---|",
    ]
    for row, found in seen.items():
        median = [statistics.median(column) for column in zip(*(each[:3] for each in found), strict=True)]
        first = [each.first for each in found if each.first is not None]
        start = f"{statistics.median(first):.2f}" if first else ""
        lines.append(f"| {row.name} | {median[0]:.2f} | {median[1]:.0f} | {median[2]:.2f} | {start} |")
    return lines


def costs(rounds: int, seconds: float) -> list[str]:
    """The table of what the ways cost."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "benchmarks", "--only", "persistent,connect", "--paths", ",".join(PATHS),
                "--rounds", str(rounds), "--seconds", str(seconds), "--out", folder]  # fmt: skip
        subprocess.run(argv, check=True)
        found = results.load(Path(folder, "results.json"))
    lines = [
        "| 64 B | p50 at 1, µs | round trips/s at 16 | at 128 | CPU, µs per round trip at 16 | connects/s at 16 "
        "| one connect, µs |",
        "|---|---|---|---|---|---|---|",
    ]
    cells = (("persistent", 1, "p50_us"), ("persistent", 16, "rate"), ("persistent", 128, "rate"),
             ("persistent", 16, "cpu_us"), ("connect", 16, "rate"), ("connect", 1, "p50_us"))  # fmt: skip
    for path, name in PATHS.items():
        values = [found.median(measure, f"64 B × {count}", path, metric) for measure, count, metric in cells]
        lines.append(f"| {name} | " + " | ".join("–" if each is None else f"{each:,.0f}" for each in values) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docker.bench", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of everything: whether it works")
    quick = parser.parse_args().quick
    if (why := missing()) is not None:
        say(f"bench-containers: {why}")
        return 1
    rounds, seconds = (1, 0.1) if quick else (5, 1.0)
    tables = [restarts(rounds), costs(rounds, seconds)]
    told = facts.collect((0, 1))
    head = f"Medians of {rounds} rounds; {told['cpu']}, {told['kernel']}, {told['hostlane']}."
    sys.stdout.write("\n\n".join([head, *("\n".join(table) for table in tables)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
