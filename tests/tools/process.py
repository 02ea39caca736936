"""A real proxy in a process of its own: started with a configuration, waited for by its log, ended in every way."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from proxy.demo.mesh import HOSTLANE
from tests.tools.sockets import PATIENCE

READY = "proxy ready"


class Place(Protocol):
    """Where a process is started: a host of the lab, say."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]: ...


class Process:
    """A process that logs JSON lines. ``with`` starts it and ends it with SIGTERM.

    At the end of the block it is an AssertionError, unless there is another error already, if the process logged a
    traceback or wrote anything but JSON: no user ever wants to see either.

    Args:
        argv: the command.
        host: where to run it; None: this machine as it is.

    Attributes:
        log: the events so far of the latest start, oldest first; a line that is not JSON is ``{"text": line}``.
    """

    def __init__(self, argv: Sequence[str], *, host: Place | None = None) -> None:
        self.argv = list(argv)
        self.host = host
        self.log: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reading = False
        self._listening = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again), with an empty log. Waits for nothing."""
        assert not self.running, "already running"
        popen: Callable[..., subprocess.Popen[str]] = subprocess.Popen if self.host is None else self.host.popen
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.log, self._reading = [], True
        self._process = popen(self.argv, text=True, errors="replace", **pipes)
        self._reader = threading.Thread(target=self._read, args=[self._process, self.log], daemon=True)
        self._reader.start()

    def wait_for(self, event: str, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first event of that name and with those fields, at or after position ``since`` of the log.

        Waits for it; AssertionError with the log if the process ends before, or after PATIENCE.
        """
        wanted = {"event": event, **fields}
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for entry in self.log[since:]:
                    if wanted.items() <= entry.items():
                        return entry
                since = max(since, len(self.log))
                assert self._reading, f"it ended before it logged {wanted}:\n{self.text()}"
                assert self._news.wait(deadline - time.monotonic()), f"it has not logged {wanted}:\n{self.text()}"

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Nobody reads what it writes until the end of the block: its pipe fills up."""
        with self._listening:
            yield

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """All such events so far."""
        wanted = {"event": event, **fields}
        return [entry for entry in self.log if wanted.items() <= entry.items()]

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None, "not started"
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code. After PATIENCE: kill -9 and AssertionError with the log."""
        assert self._process is not None, "not started"
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended by itself and all its output is in the log. After PATIENCE: as `stop`."""
        assert self._process is not None, "not started"
        assert self._reader is not None, "not started"
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"it did not end:\n{self.text()}") from None
        self._reader.join()
        return code

    def text(self) -> str:
        """The log for people."""
        return "\n".join(entry.get("text") or json.dumps(entry) for entry in self.log)

    def complaints(self) -> list[dict[str, Any]]:
        """Log entries that show a bug: tracebacks, and output that is not JSON."""
        return [entry for entry in self.log if "text" in entry or "traceback" in entry]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()
        if self._reader is not None:
            self._reader.join()
        if error is None:
            assert not self.complaints(), self.text()

    def _read(self, process: subprocess.Popen[str], log: list[dict[str, Any]]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._listening, self._news:
                    log.append(entry_of(line.rstrip("\n")))
                    self._news.notify_all()
        with self._news:
            self._reading = False
            self._news.notify_all()


def entry_of(line: str) -> dict[str, Any]:
    """A line of a log; one that is not JSON is ``{"text": line}``."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {"text": line}
    return entry if isinstance(entry, dict) else {"text": line}


class Proxy(Process):
    """``hostlane proxy``; ``with`` gives it running and ready.

    Args:
        config: the configuration: YAML text, or the same as a mapping.
        folder: an existing folder for the configuration file.
    """

    def __init__(self, config: str | Mapping[str, Any], folder: Path, *, host: Place | None = None) -> None:
        self.file = folder / "hostlane.yaml"
        # JSON is YAML.
        self.file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))
        super().__init__([*HOSTLANE, "proxy", "--config", str(self.file)], host=host)

    def ready(self) -> None:
        """Wait until it accepts connections."""
        self.wait_for(READY)

    def restart(self) -> None:
        """Start it again after `kill` or `stop`, and wait until it is ready."""
        self.start()
        self.ready()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.ready()
        except BaseException:
            if self.running:
                self.kill()
            raise
        return self
