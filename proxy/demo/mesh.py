"""Two real proxies, started as a user starts them: one YAML file each and ``hostlane proxy --config FILE``."""

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
    return "\n".join(lines) + "\n"


def start(near: End, text: str) -> Service:
    """Write the configuration beside the run_dir and start the proxy in the foreground, as a service manager would."""
    file = near.run_dir.with_suffix(".yaml")
    file.write_text(text)
    argv = [*HOSTLANE, "proxy", "--config", str(file)]
    return Service(f"the proxy of {near.place.name}", near.place, argv, near.run_dir.with_suffix(".log"))


def explain(end: End, service: str, options: Sequence[str]) -> str:
    """What ``hostlane explain`` of a service prints on that host. Raises DemoError if it has nothing to say."""
    argv = [*HOSTLANE, "explain", service, "--socket", str(end.admin_socket), *options]
    done = subprocess.run(end.place.command(argv), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:200]
        raise DemoError(f"hostlane explain {service} on {end.place.name} failed: {said}")
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
