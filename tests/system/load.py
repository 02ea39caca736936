"""The benchmark's load client and server as a system test needs them: every byte verified, every failure counted."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

# The benchmarks are no part of what is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.build import build
from benchmarks.loadrun import Figures, figures
from proxy.demo.lab import LabHost

LONGEST = 120
"""Seconds after which it ends by itself."""


@contextmanager
def server(host: LabHost, *addresses: str) -> Iterator[None]:
    """Serves the client at these addresses of a host."""
    argv = [str(build().echo), "--seconds", "120"]
    for address in addresses:
        argv += ["--listen", address]
    process = host.popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Load:
    """``with`` runs it beside the block, from the moment when all its connections have had an answer until the block's
    end.

    Args:
        what: as the client takes it: ``req=16,ping=32`` is 16 callers that connect for each message and 32 that stay.

    Attributes:
        figures: what came of it.
    """

    figures: Figures

    def __init__(self, host: LabHost, address: str, what: str) -> None:
        self._argv = [str(build().load), "--to", address, "--ready-within", "20", "--phase", f"{LONGEST}:{what}"]
        self._host = host

    def __enter__(self) -> Self:
        self._process = self._host.popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        assert self._process.stderr.readline() == b"ready 0\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGUSR1)
        out, err = self._process.communicate(timeout=20)
        [self.figures] = figures(out, err)
