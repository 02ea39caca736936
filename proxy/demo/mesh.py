"""Two real proxies, as a user has them: one YAML file each, ``hostlane net apply`` and ``hostlane proxy`` with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.base.reading.addresses import ADMIN_SOCKET
from proxy.demo.processes import BackgroundProcess, CommandHost, DemoError

HOSTLANE = [sys.executable, "-P", "-c", "from control.cli.main import main; main()"]
"""The command ``hostlane`` of the very installation that runs now, whatever PATH says."""
PATIENCE_S = 30
"""For a command that takes a second."""


@dataclass(frozen=True)
class DemoProxy:
    """One host's side of the mesh: its proxy's link address and its folder for sockets."""

    place: CommandHost
    port: int
    run_dir: Path
    page_port: int | None = None
    """Where it shows its page (docs/page.md); None: nowhere."""

    @property
    def link_address(self) -> str:
        return f"{self.place.address}:{self.port}"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.run_dir.with_name(f"{self.place.name}.yaml")

    @property
    def token(self) -> Path:
        """What it joins with."""
        return self.run_dir.with_suffix(".token")

    @property
    def socket_dir(self) -> Path:
        """Where it listens for callers. The name is short: a Unix socket's path must be, and TMPDIR may be long."""
        return self.run_dir.with_suffix(".s")

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / ADMIN_SOCKET


def configuration(end: DemoProxy, server: str, *, offers: Path | None = None) -> str:
    """The YAML of a host that joins the mesh of a control server (IP:PORT). It offers ``redis`` from the socket
    ``offers``, or else calls what the mesh has."""
    lines = [
        f"host: {end.place.name}",
        f"run_dir: {end.run_dir}",
        f"socket_dir: {end.socket_dir}",
        "links:",
        f"  listen: {end.link_address}",
        "control:",
        f"  servers: [{server}]",
        f"  token_file: {end.token}",
        f"  state_dir: {end.run_dir.with_suffix('.state')}",
    ]
    lines += telemetry(end.place, end.page_port)
    if offers is None:
        lines += ["upstreams: all"]
    else:
        lines += ["services:", f'  redis: {{deliver: "unix:{offers}"}}']
    return "\n".join(lines) + "\n" + end.place.section


def telemetry(place: CommandHost, port: int | None) -> list[str]:
    """The YAML of the section that has a page shown there; nothing for None."""
    return [] if port is None else ["telemetry:", f"  listen: {place.address}:{port}", "  page: true"]


def make_interfaces(end: DemoProxy) -> str:
    """What ``hostlane net apply`` prints on that host, with its configuration. Raises DemoError if it fails."""
    return said(end.place, end.file.parent, "net", "apply", "--config", end.file.name)


def start(end: DemoProxy) -> BackgroundProcess:
    """The proxy with its configuration in the foreground, as a service manager starts it."""
    argv = [*HOSTLANE, "proxy", "--config", str(end.file)]
    return BackgroundProcess(f"the proxy of {end.place.name}", end.place, argv, end.run_dir.with_suffix(".log"))


def explain(end: DemoProxy, service: str, options: Sequence[str]) -> str:
    """What ``hostlane explain`` of a service prints on that host. Raises DemoError if it has nothing to say."""
    return said(end.place, end.file.parent, "explain", service, "--socket", str(end.admin_socket), *options)


def status(end: DemoProxy) -> dict[str, Any]:
    """What ``hostlane status --json`` says. Raises DemoError if it says nothing useful."""
    done = _run(end.place, end.file.parent, "status", "--socket", str(end.admin_socket), "--json")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise DemoError(f"hostlane status of {end.place.name} failed: {_complaint(done)}") from None
    if not isinstance(found, dict):
        raise DemoError(f"hostlane status of {end.place.name}: not an object")
    return found


def said(place: CommandHost, folder: Path, *words: str) -> str:
    """What ``hostlane`` with these words prints there, run in that folder. Raises DemoError if it fails."""
    done = _run(place, folder, *words)
    if done.returncode:
        raise DemoError(f"{_what(place, words)} failed: {_complaint(done)}")
    return done.stdout


def _run(place: CommandHost, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # In a session of its own: Ctrl-C is for the demo, which ends the command with all the rest.
    options: dict[str, Any] = {"cwd": folder, "start_new_session": True, "timeout": PATIENCE_S, "check": False}
    try:
        return subprocess.run(place.command([*HOSTLANE, *words]), capture_output=True, text=True, **options)
    except subprocess.TimeoutExpired:
        raise DemoError(f"{_what(place, words)} did not end within {PATIENCE_S} s") from None


def _what(place: CommandHost, words: Sequence[str]) -> str:
    return f"hostlane {' '.join(words[:2])} on {place.name}"


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[:200]
