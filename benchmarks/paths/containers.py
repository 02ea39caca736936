"""Hostlane for containers that know nothing of it: listeners inside their network namespaces, and a sidecar."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from benchmarks.loadrun import Target
from benchmarks.paths.hostlane import Hostlane
from benchmarks.testbed import CONTAINER_PORT, DIRECT_PORT

CONTAINER = "127.77.0.2"


class HostlaneInside(Hostlane):
    """Through a listener in the namespace of the client's container, to a server in another one: the door makes both
    ends (docs/containers.md). No engine: what the labels say is given to it (benchmarks/door.py).
    """

    port = 7604
    variant = "container"

    def __init__(self, name: str, bed: Any) -> None:
        super().__init__(name, bed)
        self._doors: list[subprocess.Popen[bytes]] = []

    def commands(self) -> tuple[list[str], list[str]]:
        commands = super().commands()
        for side in "ab":
            file = self.folder / f"{side}.yaml"
            text = "".join(line for line in file.read_text().splitlines(True) if "deliver:" not in line)
            text = text.replace("services:\n", "") if side == "b" else text
            file.write_text(f"{text}door: {{directory: {self._directory(side)}, user: {os.geteuid()}}}\n")
        return commands

    def launch(self) -> None:
        super().launch()
        labels = {
            "a": f"hostlane.use=bench@{CONTAINER}:{CONTAINER_PORT}",
            "b": f"hostlane.offer=bench=tcp:172.17.0.2:{CONTAINER_PORT}",
        }
        for side, host in zip("ab", self.bed.lab.hosts, strict=True):
            argv = [sys.executable, "-m", "benchmarks.door", self._directory(side), host.container_netns, labels[side]]
            self._doors.append(self.bed.start(host, argv, log=self._log(side)))

    def stop(self) -> None:
        for door in self._doors:
            door.kill()
            door.wait()
        self._doors.clear()
        super().stop()

    def target(self) -> Target:
        pids = tuple(process.pid for process in self.processes)
        return self.bed.client(f"tcp:{CONTAINER}:{CONTAINER_PORT}", container=True, pids=pids)

    def _directory(self, side: str) -> str:
        return str(self.folder / f"door-{side}")


class HostlaneSidecar(Hostlane):
    """Through a TCP listener of a proxy in the client's own network namespace, to a TCP server in its peer's."""

    port = 7605
    variant = "container"

    def commands(self) -> tuple[list[str], list[str]]:
        commands = super().commands()
        for side, old, new in (
            ("a", f"unix:{self.entry}", f"tcp:{self._entry}"),
            ("b", f"unix:{self.bed.server_socket}", f"tcp:{self.bed.lab.b.address}:{DIRECT_PORT}"),
        ):
            file = self.folder / f"{side}.yaml"
            file.write_text(file.read_text().replace(old, new))
        return commands

    def target(self) -> Target:
        return self.bed.client(f"tcp:{self._entry}", pids=tuple(process.pid for process in self.processes))

    @property
    def _entry(self) -> str:
        return f"{CONTAINER}:{CONTAINER_PORT}"
