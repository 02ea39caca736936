"""One run over one way: what is counted, and what is said when the load program fails or hangs."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

import pytest

from proxy.demo import paths, redis
from proxy.demo.loopback import Loopback
from proxy.demo.paths import DemoPath, Workload
from proxy.demo.processes import DemoError
from tests.tools.sockets import free_port

KIND = Workload("persistent", persistent=True, requests=10)
RESULT = 'print(\'"test","rps","p50_latency_ms","p99_latency_ms"\\n"SET","10","1","2"\')'


def way(machine: Loopback, port: int = 1) -> DemoPath:
    return DemoPath("somewhere", machine.a, ("-p", str(port)), f"( dport = :{port} )")


def load_program(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    def command(target: Sequence[str], **counts: object) -> list[str]:
        return [sys.executable, "-c", script]

    monkeypatch.setattr(redis, "load_command", command)


def test_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    load_program(monkeypatch, RESULT)
    with Loopback() as machine:
        measured, _ = paths.measure(way(machine), KIND)
    assert measured == redis.BenchmarkRun(10, 1, 2)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('first\\nrefused')", r"over somewhere failed \(exit code 1\): refused"),
        ("import sys; print('on stdout'); sys.exit(3)", r"failed \(exit code 3\): on stdout"),
        ("import os; os.kill(os.getpid(), 9)", r"failed \(SIGKILL\): it said nothing"),
        ("pass", "no result"),
    ],
)
def test_measure_a_failing_program(monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    load_program(monkeypatch, script)
    with Loopback() as machine, pytest.raises(DemoError, match=message):
        paths.measure(way(machine), KIND)


def test_measure_a_hanging_program(monkeypatch: pytest.MonkeyPatch) -> None:
    load_program(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(paths, "RUN_LIMIT_S", 0.1)
    with Loopback() as machine:
        with pytest.raises(DemoError, match="did not finish"):
            paths.measure(way(machine), KIND)


def test_connections_counts_established_ones_of_the_way() -> None:
    # Not a port that the kernel gives to the callers of others: what it counts is whatever goes to that port.
    with socket.create_server(("127.0.0.1", free_port())) as listener, Loopback() as machine:
        here = way(machine, listener.getsockname()[1])
        before = paths.connections(here)
        if before is None:
            pytest.skip("no ss here")
        with socket.create_connection(listener.getsockname()), socket.create_connection(listener.getsockname()):
            assert (before, paths.connections(here)) == (0, 2)


def test_connections_without_ss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert paths.connections(way(Loopback())) is None
