"""A real Redis server, its own load program, and just enough of its protocol to prove that bytes arrive unchanged."""

from __future__ import annotations

import csv
import io
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.processes import BackgroundProcess, CommandHost, DemoError

READY_S = 15.0
"""How long a server or a proxy may take to answer for the first time; both need well under a second."""


@dataclass(frozen=True)
class BenchmarkRun:
    """One run of redis-benchmark."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def missing() -> str | None:
    """Why the demo has no Redis here, in one line; None if it has."""
    for program, package in (("redis-server", "redis-server"), ("redis-benchmark", "redis-tools")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt-get install {package})"
    return None


def serve(place: CommandHost, address: str, port: int, path: Path, *, container: bool = False) -> BackgroundProcess:
    """Start a server that keeps nothing on disk, on a TCP address of the place and on the Unix socket ``path``."""
    options = {
        "bind": address,
        "port": str(port),
        "unixsocket": str(path),
        "protected-mode": "no",
        "save": "",
        "appendonly": "no",
        "dir": str(path.parent),
    }
    argv = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
    where = f"{place.name}'s container" if container else place.name
    return BackgroundProcess(f"redis-server on {where}", place, argv, path.with_suffix(".log"), container=container)


def load_command(target: Sequence[str], *, persistent: bool, requests: int, clients: int) -> list[str]:
    """redis-benchmark: SET of 64 bytes, a connection per client or per request; ``target`` is -s PATH or -h and -p."""
    counts = ["-n", str(requests), "-c", str(clients), "-k", "1" if persistent else "0"]
    return ["redis-benchmark", *target, *counts, "-t", "set", "-d", "64", "--precision", "3", "--csv"]


def parse_csv(text: str) -> BenchmarkRun:
    """The one result in ``redis-benchmark --csv`` output. Raises DemoError if it holds none (Redis before 6.2)."""
    start = text.find('"test"')
    row = next(csv.DictReader(io.StringIO(text[start:])), None) if start >= 0 else None
    try:
        values = row or {}
        return BenchmarkRun(*(float(values[key]) for key in ("rps", "p50_latency_ms", "p99_latency_ms")))
    except (KeyError, TypeError, ValueError):
        said = " ".join(text.split())[:200] or "nothing"
        raise DemoError(f"redis-benchmark printed no result that the demo understands, but: {said}") from None


class RedisClient:
    """A connection over a Unix socket, speaking RESP2. Raises OSError when it breaks, DemoError for an error reply."""

    def __init__(self, path: Path, timeout: float = READY_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> RedisClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, *words: bytes) -> bytes:
        """Send a command; its reply as bytes (a simple string or a bulk string; a null is empty)."""
        parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
        self._socket.sendall(b"".join(parts))
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended within a reply")
        if line.startswith(b"$"):
            return self._bulk(int(line[1:]))
        if line.startswith(b"-"):
            raise DemoError(f"Redis said: {line[1:].decode().strip()}")
        return line[1:-2]

    def _bulk(self, size: int) -> bytes:
        if size < 0:
            return b""
        data = self._stream.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError(f"the connection ended after {len(data)} of {size} bytes")
        return data[:-2]


def wait_until_it_answers(path: Path, services: Sequence[BackgroundProcess]) -> None:
    """PING over ``path`` until PONG. Raises DemoError when a service dies or READY_S seconds have passed."""
    deadline = time.monotonic() + READY_S
    last = "no socket"
    while time.monotonic() < deadline:
        for service in services:
            service.check()
        try:
            with RedisClient(path) as client:
                if client.call(b"PING") == b"PONG":
                    return
        except OSError as error:
            last = str(error) or type(error).__name__
        except DemoError as error:  # LOADING, for a moment after the start
            last = str(error)
        time.sleep(0.02)
    raise DemoError(f"{path}: Redis did not answer within {READY_S:.0f} s ({last})")
