"""The bare loop (floor.c) at both ends: what a pair of multiplexing proxies costs that does nothing else."""

from __future__ import annotations

from benchmarks.paths.base import ProxyPair


class Floor(ProxyPair):
    """It carries messages, and no bulk."""

    port = 7660
    variant = "floor"

    def commands(self) -> tuple[list[str], list[str]]:
        link = ["--link", f"tcp:{self.bed.lab.b.address}:{self.port}"]
        program = str(self.bed.programs.floor)
        return (
            [program, "--entry", f"unix:{self.entry}", *link],
            [program, "--deliver", f"unix:{self.bed.server_socket}", *link],
        )
