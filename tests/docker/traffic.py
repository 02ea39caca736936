"""Verified traffic from a container to Redis: every call is written down by `tests.docker.probe`, and read here."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from tests.docker.engines import SERVICES, EngineHost
from tests.tools.sockets import eventually

HOLDER = """
import socket, time
sock = socket.socket(socket.AF_UNIX)
sock.connect("/run/hostlane-services/redis.sock")
said = False
while True:
    sock.sendall(b"PING\\r\\n")
    assert sock.recv(100) == b"+PONG\\r\\n"
    said = said or print("answered") is None
    time.sleep(0.05)
"""
"""One connection, on which question and answer follow each other for ever."""
USE = {"hostlane.use": "redis@127.77.0.2:6379"}
OFFER = {"hostlane.offer": "redis=tcp:127.0.0.1:6379"}
SERVER = ["redis-server", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
LABEL, UNIX, CONNECT = "tcp:127.77.0.2:6379", f"unix:{SERVICES}/redis.sock", f"connect:{SERVICES}/connect.sock"

CUT = {"ConnectionResetError", "BrokenPipeError", "ended"}
"""What becomes of what is open when one of its ends goes."""
PROBE = Path(__file__).with_name("probe.py")


class Call(msgspec.Struct, frozen=True):
    """One call: connected, if it is a ``new`` one, asked and answered.

    Attributes:
        way: ``tcp``, ``unix`` or ``connect``.
        began, ended: seconds of the wall clock.
        error: what became of it instead of the right answer; empty: nothing else.
    """

    way: str
    kind: str
    began: float
    ended: float
    error: str

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.began


class Traffic:
    """A container that calls all the time. It is one of the host's containers, which ends it with all others.

    Args:
        ways: see tests/docker/probe.py.
        every: seconds between two new connections.
        start: whether it begins at once; else by `start`.
    """

    def __init__(
        self, host: EngineHost, *ways: str, name: str = "client", every: float = 0.05, start: bool = True
    ) -> None:
        self.host, self.name, self.ways, self.every = host, name, ways or (LABEL,), every
        folder = host.files.parent / "traffic"
        folder.mkdir(mode=0o777, exist_ok=True)
        self.file = folder / f"{name}-{time.time_ns()}.jsonl"
        if start:
            self.start()

    def start(self, *options: str) -> None:
        """Start the container, or another one of that name."""
        self.host.run(
            self.name, [os.path.realpath(sys.executable), str(PROBE), str(self.file), *self.ways], *options,
            f"--env=EVERY={self.every}", f"--volume={PROBE}:{PROBE}:ro",
            f"--volume={self.host.sockets}/services:{SERVICES}",
            f"--volume={self.file.parent}:{self.file.parent}", labels=USE,
        )  # fmt: skip

    @property
    def calls(self) -> list[Call]:
        """All that have an end."""
        try:
            lines = self.file.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Call) for line in lines if line.endswith(b"\n")]

    def flows(self) -> float:
        """Wait until calls that begin from now on are answered, of both kinds and on every way. Returns the moment
        at which they were.
        """
        now = time.time()
        wanted = {(way.partition(":")[0], kind) for way in self.ways for kind in ("kept", "new")}

        def answered() -> bool:
            return wanted <= {(call.way, call.kind) for call in self.calls if call.began > now and not call.error}

        try:
            eventually(answered, "answers")
        except AssertionError as error:
            last = [call for call in self.calls if call.began > now]
            raise AssertionError(f"{error}; since then {Counter((c.way, c.kind, c.error) for c in last)}") from None
        return time.time()

    def failed(self, since: float, way: str = "", kind: str = "") -> list[Call]:
        """The calls without the right answer that ended since a moment; of one way or kind, or of all."""
        return [
            call for call in self.calls
            if call.error and call.ended > since and call.way.startswith(way) and call.kind.startswith(kind)
        ]  # fmt: skip


def start_server(host: EngineHost, name: str = "server", *options: str) -> None:
    """A Redis that is offered."""
    host.run(name, SERVER, "--user=65534:65534", *options, labels=OFFER)
