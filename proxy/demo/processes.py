"""Processes that the demo and the lab start: in sessions of their own, ended together, with one line when one dies."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from proxy.errors import HostlaneError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What tells somebody to end: Ctrl-C, a service manager, a terminal that is closed."""
PATIENCE = 5.0
"""Seconds between SIGTERM and SIGKILL: more than a proxy with idle links needs to stop."""


class DemoError(HostlaneError):
    """The demo cannot go on; the text says why in one line."""


class CommandHost(Protocol):
    """Where a command runs: a host of the lab, or this machine itself."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def section(self) -> str:
        """``interfaces`` of its host's configuration, as YAML; "" where the address is there already."""
        ...

    def socket(self) -> socket.socket:
        """A TCP socket of this process that lives there. The caller closes it."""
        ...

    def command(self, argv: Sequence[str], *, container: bool = False) -> list[str]: ...

    def popen(self, argv: Sequence[str], *, container: bool = False, **options: Any) -> subprocess.Popen[Any]: ...


class BackgroundProcess:
    """A long-running process whose output goes to a file, so that its last words can be quoted."""

    def __init__(
        self, what: str, place: CommandHost, argv: Sequence[str], log: Path, *, container: bool = False
    ) -> None:
        self.what = what
        self.log = log
        with log.open("wb") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            self._process = place.popen(argv, container=container, **options)

    def check(self) -> None:
        """Raises DemoError, with the last line that the process wrote, if it has ended."""
        code = self._process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["it wrote nothing"]
            raise DemoError(f"{self.what} ended ({ended(code)}): {lines[-1]}")


def begin(argv: Sequence[str], noted: list[subprocess.Popen[Any]], options: dict[str, Any]) -> subprocess.Popen[Any]:
    """Start a process in a session of its own: Ctrl-C does not reach it. It stands in ``noted`` whatever happens."""
    with signals_held():
        process = subprocess.Popen(argv, **{"start_new_session": True, **options})
        noted.append(process)
    return process


def ended(code: int) -> str:
    """A return code in words: ``exit code 2`` or ``SIGKILL``."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def stop(processes: Iterable[subprocess.Popen[Any]], patience: float | None = None) -> None:
    """SIGTERM to all at once, then wait for each; SIGKILL after ``patience`` seconds. Closes the pipes to them."""
    processes = list(processes)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(PATIENCE if patience is None else patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """`SIGNALS` wait for the end of the block: whatever is done in it is not left half done.

    Processes started inside are not concerned, and neither is another thread than the main one, which alone gets any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # One that was not set from Python is None, and cannot be put back.
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        # All at once: what one of them raises would keep the others from their places.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number, handler in before.items():
            signal.signal(number, handler)
        for signaled in came:
            signal.raise_signal(signaled)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
