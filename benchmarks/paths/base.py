"""What all paths have in common; and a pair of proxies, Unix socket to Unix socket, as three of them are."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks import loadrun
from benchmarks.errors import BenchError
from benchmarks.loadrun import Phase, Target
from benchmarks.testbed import Testbed
from proxy.demo.certificates import CertificateAuthority

Variant = Literal["mtls", "no-poll", "floor", "container"]
"""With mutual TLS between the hosts; without busy polling; the bare loop in C; for containers that know nothing."""

STOP_WITHIN = 10.0
"""Seconds between SIGTERM and SIGKILL."""


class BenchPath(ABC):
    """A way from a client on host A to the server on host B."""

    port: int
    """TCP port on host B, as host A's side sees it."""
    container = False
    """The client runs in A's container, behind bridge and NAT."""
    variant: Variant | None = None
    """Of what kind the path is that only the cells that name it are measured on."""
    second_entry: Path | None = None
    """Unix socket of another way in, as another container of host A has it."""

    def __init__(self, name: str, bed: Testbed) -> None:
        self.name = name
        self.bed = bed

    @property
    def proxied(self) -> bool:
        return False

    @abstractmethod
    def target(self) -> Target:
        """Where the client goes. Only after ``start``."""

    def launch(self) -> None:
        """Start what the path needs, without waiting for it. Raises BenchError."""
        return

    def stop(self) -> None:
        """End what ``launch`` started; harmless if nothing runs."""
        return

    def check(self, within: float = 15.0) -> None:
        """Send one message through, again and again. Raises BenchError when no reply comes in time."""
        deadline = time.monotonic() + within
        while True:
            try:
                loadrun.run(str(self.bed.programs.load), self.target(), [Phase(0.02, "ping=1")], ready_within=1)
                return
            except BenchError as error:
                if time.monotonic() > deadline or self.ended():
                    raise BenchError(f"{error}{self.last_words()}") from None

    def busy_polled(self) -> list[float]:
        """Seconds that each of its proxies has spent busy polling so far; none of what does not say."""
        return []

    def links(self) -> int:
        return self.bed.links(self.port, container=self.container)

    def ended(self) -> bool:
        """One of the processes has ended by itself."""
        return False

    def last_words(self) -> str:
        """What the processes said last, to be put behind an error."""
        return ""


class ProxyPair(BenchPath):
    """Two processes of one kind: A takes connections on a Unix socket, B delivers them to the server's."""

    under: Sequence[str] = ()
    """What runs each of them, if not the system itself: the beginning of its command line."""

    def __init__(self, name: str, bed: Testbed) -> None:
        super().__init__(name, bed)
        self.folder = bed.folder / name
        self.entry = self.folder / "entry.sock"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def proxied(self) -> bool:
        return True

    @abstractmethod
    def commands(self) -> tuple[Sequence[str], Sequence[str]]:
        """Write the configurations to ``self.folder``; the command lines of A's and B's process. Raises BenchError."""

    def target(self) -> Target:
        return self.bed.client(f"unix:{self.entry}", pids=tuple(process.pid for process in self.processes))

    def launch(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for side, host, argv in zip("ab", (self.bed.lab.a, self.bed.lab.b), self.commands(), strict=True):
            self.processes.append(self.bed.start(host, [*self.under, *argv], log=self._log(side)))

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def last_words(self) -> str:
        words = ""
        for side, process in zip("ab", self.processes, strict=False):
            lines = self._log(side).read_text(errors="replace").strip().splitlines()
            ended = process.poll()
            if ended is not None or lines:
                state = f"exit code {ended}" if ended is not None else "running"
                words += f"; proxy {side} ({state}): {lines[-1][:300] if lines else 'said nothing'}"
        return words

    def certificates(self) -> dict[str, dict[str, str]]:
        """Files of both hosts (``key``, ``certificate``, ``ca``), by side, of a CA of this path's own."""
        authority = CertificateAuthority()
        for side in "ab":
            (self.folder / f"tls-{side}").mkdir(exist_ok=True)
        return {side: authority.write(self.folder / f"tls-{side}", f"host-{side}") for side in "ab"}

    def _log(self, side: str) -> Path:
        return self.folder / f"{side}.log"
