"""The ways from a client on host A to the Redis on host B, and one run of redis-benchmark over one of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

from proxy.demo import redis
from proxy.demo.processes import CommandHost, DemoError, ended
from proxy.demo.redis import BenchmarkRun

GLIMPSE_S = 0.08
"""How long a run goes on before ss looks at it: its clients are connected by then, and the shortest takes 0.15 s."""
RUN_LIMIT_S = 60.0
"""A run that takes longer hangs: the slowest measured takes 2 s."""


@dataclass(frozen=True)
class DemoPath:
    """Where the client runs, what redis-benchmark calls, and how ss finds the connections between the hosts."""

    name: str
    place: CommandHost
    target: tuple[str, ...]
    between: str
    """Filter expression of ss for the TCP connections that join the hosts, at the client's end."""
    container: bool = False
    through_mesh: bool = False


@dataclass(frozen=True)
class Workload:
    """How a client uses connections, and how many requests make a run of about a second."""

    name: str
    persistent: bool
    requests: int
    clients: int = 50


def measure(way: DemoPath, kind: Workload) -> tuple[BenchmarkRun, int | None]:
    """One run; the result, and how many TCP connections joined the hosts meanwhile.

    Raises DemoError when redis-benchmark fails or hangs.
    """
    argv = redis.load_command(way.target, persistent=kind.persistent, requests=kind.requests, clients=kind.clients)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = way.place.popen(argv, container=way.container, **pipes)
    try:
        links = glimpse(way, process)
        output, complaints = process.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise DemoError(f"redis-benchmark over {way.name} did not finish within {RUN_LIMIT_S:.0f} s") from None
    if process.returncode != 0:
        last = (complaints.strip() or output.strip() or "it said nothing").splitlines()[-1]
        raise DemoError(f"redis-benchmark over {way.name} failed ({ended(process.returncode)}): {last}")
    return redis.parse_csv(output), links


def glimpse(way: DemoPath, process: subprocess.Popen[str]) -> int | None:
    """Count the connections between the hosts once, while the run goes on; None if it was over too soon."""
    try:
        process.wait(GLIMPSE_S)
    except subprocess.TimeoutExpired:
        return connections(way)
    return None


def connections(way: DemoPath) -> int | None:
    """Established TCP connections that match the way's filter, at the client's end; None without ss."""
    argv = way.place.command(["ss", "-Htn", "state", "established", way.between], container=way.container)
    try:
        found = subprocess.run(argv, capture_output=True, text=True, check=True, start_new_session=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return len(found.stdout.splitlines())
