"""Two "hosts" that are this machine itself: what the demo can show without root."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from proxy.demo.processes import begin, signals_held, stop


@dataclass(frozen=True)
class LoopbackHost:
    """The same interface as `proxy.demo.lab.LabHost`, as far as the demo uses it; a container is no different here."""

    name: str
    address: str = "127.0.0.1"
    section: str = ""
    processes: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    def socket(self) -> socket.socket:
        """A TCP socket. The caller closes it."""
        return socket.socket()

    def command(self, argv: Sequence[str], *, container: bool = False) -> list[str]:
        """``argv`` itself."""
        return list(argv)

    def popen(self, argv: Sequence[str], *, container: bool = False, **options: Any) -> subprocess.Popen[Any]:
        """Start a process in a session of its own; it is ended when the `Loopback` closes."""
        return begin(self.command(argv, container=container), self.processes, options)


class Loopback:
    """Context manager: ends every process started through its hosts, whatever the reason for leaving the block."""

    def __init__(self) -> None:
        self.a = LoopbackHost("host-a")
        self.b = LoopbackHost("host-b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with signals_held():
            stop([*self.a.processes, *self.b.processes])
