"""A host of the lab with files of its own, so that commands can be typed as documents have them: with /etc/hostlane,
/run/hostlane and the folder of the sources, none of which is really there or changes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.demo.lab import LabHost
from tests.tools.process import Process
from tests.tools.sockets import PATIENCE, eventually
from tests.tools.typed import Done

ROOT = Path(__file__).resolve().parents[2]
LAYERED = ("/etc", "/srv", "/usr/local", "/var", str(ROOT))
"""What may be written to, as /opt and /run may; it is gone with the machine."""
ENVIRONMENT = {"PATH": "/opt/hostlane/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"}

_SET_UP = """\
set -e
mount -t tmpfs none /run
layered() {
    mkdir -p "/run/.own$2" "/run/.work$2" "$2"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/.own$2,workdir=/run/.work$2" "$2"
}
layered /opt /opt
layered "$1" /opt/hostlane
cp "$2/proxy/telemetry/probe.py" /opt/hostlane/probe
for folder in "${@:3}"; do layered "$folder" "$folder"; done
echo ready
exec sleep infinity
"""
_TYPE = 'cd "$1" && shift && exec "$@"'


class Going(Process):
    """A line of a shell that goes on; whatever it has started is ended by SIGTERM."""

    def stop(self) -> int:
        os.killpg(self.pid, signal.SIGTERM)
        return self.wait()

    def complaints(self) -> list[dict[str, Any]]:
        """Not all that is typed in one line logs."""
        return [entry for entry in self.log if "Traceback" in entry.get("text", "") or "traceback" in entry]


class Machine:
    """``with`` gives it with Hostlane in /opt/hostlane: the installation that runs now. What still runs on it at the
    end ends with the lab.

    Args:
        host: whose network it has.
        folder: where commands are typed, seen from the sources.
    """

    def __init__(self, host: LabHost, folder: str = "") -> None:
        self.host, self.folder = host, ROOT / folder
        self._keeper: subprocess.Popen[Any] | None = None

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` there."""
        assert self._keeper is not None, "not begun"
        variables = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", f"--net=/proc/{self._keeper.pid}/ns/net",
                "env", "-i", *variables, "bash", "-c", _TYPE, "bash", str(self.folder), *argv]  # fmt: skip

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """For `Process`."""
        return self.host.popen(self.command(argv), **options)

    def type(self, text: str, said: str | None = None) -> Done:
        """Type lines in a shell, which goes no further than the first one that fails.

        Args:
            said: on standard input.
        """
        done = subprocess.run(
            self.command(["bash", "-o", "pipefail", "-ec", text]), input=said or "", capture_output=True, text=True,
            timeout=4 * PATIENCE, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def does(self, text: str, said: str | None = None) -> str:
        """`type` what must go well. Returns what it printed."""
        done = self.type(text, said)
        assert done.code == 0, (text, done)
        return done.out

    @contextmanager
    def doing(self, line: str, says: str = "proxy ready") -> Iterator[Going]:
        """Type what goes on, until it has said that; it is ended with the block, if it still runs."""
        with Going(["bash", "-c", line], host=self) as process:
            eventually(lambda: says in process.text() or not process.running, f"{says!r} of {line}")
            assert says in process.text(), process.text()
            yield process

    def read(self, path: str) -> str:
        return self.does(f"cat {path}")

    def write(self, path: str, text: str) -> None:
        """Makes its folders, too."""
        self.does(f"mkdir -p $(dirname {path}) && cat > {path}", text)

    def __enter__(self) -> Self:
        argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _SET_UP, "bash", sys.prefix, str(ROOT)]
        self._keeper = self.host.popen([*argv, *LAYERED], stdout=subprocess.PIPE, text=True)
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        with suppress(ProcessLookupError):
            self._keeper.terminate()
        self._keeper.wait()
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()


@contextmanager
def redis_server(machine: Machine) -> Iterator[None]:
    """Redis at its usual port there."""
    server = machine.popen(["redis-server", "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL)
    eventually(lambda: machine.type("redis-cli ping").out == "PONG\n", "redis-server")
    yield
    server.terminate()
    server.wait()
