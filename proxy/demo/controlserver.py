"""The demo's control server, set up and asked as a user does it: ``hostlane control``, ``token``, ``hosts``."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from control.base.reading.addresses import CONTROL_SOCKET
from proxy.demo import mesh
from proxy.demo.mesh import HOSTLANE, DemoProxy
from proxy.demo.processes import BackgroundProcess, CommandHost, DemoError

READY_S = 15.0
"""How long it may take to listen; it needs well under a second."""


@dataclass(frozen=True)
class ControlServer:
    """Where it runs, the port for hosts' requests, and the folder that holds its configuration and all its files."""

    place: CommandHost
    port: int
    folder: Path
    page_port: int | None = None
    """Where it shows the mesh (docs/page.md); None: nowhere."""

    @property
    def address(self) -> str:
        """What hosts have under ``control.servers``."""
        return f"{self.place.address}:{self.port}"

    @property
    def file(self) -> Path:
        return self.folder / "control.yaml"

    @property
    def run_dir(self) -> Path:
        return self.folder / "c"  # not "control": a Unix socket's path must be short, and TMPDIR may be long

    def configuration(self) -> str:
        lines = [
            "name: control-1",
            f"listen: {self.address}",
            f"run_dir: {self.run_dir}",
            f"state_dir: {self.run_dir.with_suffix('.state')}",
            *mesh.telemetry(self.place, self.page_port),
        ]
        return "\n".join(lines) + "\n"

    def init(self) -> str:
        """Make the CA of the mesh; what the command prints. Raises DemoError."""
        return self._said("control", "init")

    def start(self) -> BackgroundProcess:
        """The server in the foreground; it takes requests when this returns. Raises DemoError if it does not start."""
        argv = [*HOSTLANE, "control", "--config", str(self.file)]
        service = BackgroundProcess("the control server", self.place, argv, self.folder / "control.log")
        path, deadline = str(self.run_dir / CONTROL_SOCKET), time.monotonic() + READY_S
        while time.monotonic() < deadline:
            service.check()
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(path)
                    return service
                except OSError:
                    time.sleep(0.02)
        raise DemoError(f"the control server did not listen at {path} within {READY_S:.0f} s")

    def let_in(self, end: DemoProxy) -> None:
        """Make a token for a host and bring it there. Raises DemoError."""
        made = self._said("token", "create", "--host", end.place.name)
        end.token.touch(mode=0o600)
        end.token.write_text(made)

    def show(self, what: str) -> str:
        """What ``hostlane hosts`` or ``services`` prints. Raises DemoError."""
        return self._said(what)

    def _said(self, *words: str) -> str:
        return mesh.said(self.place, self.folder, *words, "--config", self.file.name)
