"""Two real proxies, as a user has them: one YAML file each, ``hostlane net apply`` and ``hostlane proxy`` with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.demo.processes import DemoError, Place, Service

HOSTLANE = [sys.executable, "-P", "-c", "from control.cli import main; main()"]
"""The command ``hostlane`` of the very installation that runs now, whatever PATH says."""
PATIENCE_S = 30
"""For a command that takes a second."""


@dataclass(frozen=True)
class End:
    """One host's side of the mesh: its proxy's link address and its folder for sockets."""

    place: Place
    port: int
    run_dir: Path

    @property
    def link_address(self) -> str:
        return f"{self.place.address}:{self.port}"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.run_dir.with_name(f"{self.place.name}.yaml")

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / "admin.sock"


def configuration(near: End, far: End, *, calls: Path | None = None, offers: Path | None = None) -> str:
    """The YAML of a host that calls ``redis`` through the socket ``calls``, or offers it from the socket ``offers``."""
    services = "redis" if calls else ""
    lines = [
        f"host: {near.place.name}",
        f"run_dir: {near.run_dir}",
        "links:",
        f"  listen: {near.link_address}",
        "  security: none",
        "peers:",
        f"  {far.place.name}: {{address: {far.link_address}, services: [{services}]}}",
    ]
    if calls:
        lines += ["upstreams:", f'  redis: {{listen: "unix:{calls}"}}']
    if offers:
        lines += ["services:", f'  redis: {{deliver: "unix:{offers}"}}']
    return "\n".join(lines) + "\n" + near.place.section


def make_interfaces(end: End) -> str:
    """What ``hostlane net apply`` prints on that host, with its configuration. Raises DemoError if it fails."""
    return _said(end, "net", "apply", "--config", str(end.file))


def start(end: End) -> Service:
    """The proxy with its configuration in the foreground, as a service manager starts it."""
    argv = [*HOSTLANE, "proxy", "--config", str(end.file)]
    return Service(f"the proxy of {end.place.name}", end.place, argv, end.run_dir.with_suffix(".log"))


def explain(end: End, service: str, options: Sequence[str]) -> str:
    """What ``hostlane explain`` of a service prints on that host. Raises DemoError if it has nothing to say."""
    return _said(end, "explain", service, "--socket", str(end.admin_socket), *options)


def _said(end: End, *words: str) -> str:
    argv, what = end.place.command([*HOSTLANE, *words]), f"hostlane {' '.join(words[:2])} on {end.place.name}"
    try:
        # In a session of its own: Ctrl-C is for the demo, which ends the command with all the rest.
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"{what} did not end within {PATIENCE_S} s") from None
    if done.returncode:
        raise DemoError(f"{what} failed: {' '.join(done.stderr.split())[:200]}")
    return done.stdout


def status(end: End) -> dict[str, Any]:
    """What ``hostlane status --json`` says. Raises DemoError if it says nothing useful."""
    argv = [*HOSTLANE, "status", "--socket", str(end.admin_socket), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = " ".join(done.stderr.split())[:200]
        raise DemoError(f"hostlane status of {end.place.name} failed: {said}") from None
    if not isinstance(found, dict):
        raise DemoError(f"hostlane status of {end.place.name}: not an object")
    return found
