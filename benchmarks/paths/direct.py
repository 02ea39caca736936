"""No proxy: plain TCP over macvlan, and plain TCP the way Docker's default network carries it."""

from __future__ import annotations

from benchmarks.loadrun import Target
from benchmarks.paths.base import BenchPath
from benchmarks.testbed import DIRECT_PORT, PUBLISHED_PORT


class Direct(BenchPath):
    """Over the macvlan interfaces, as containers on a macvlan network talk."""

    port = DIRECT_PORT

    def target(self) -> Target:
        return self.bed.client(f"tcp:{self.bed.lab.b.address}:{self.port}")


class Bridge(BenchPath):
    """Bridge and masquerading on A, a published port (DNAT) and bridge on B, connection tracking on both."""

    port = PUBLISHED_PORT
    container = True

    def target(self) -> Target:
        return self.bed.client(f"tcp:{self.bed.lab.b.machine_address}:{self.port}", container=self.container)
