"""Reads the numbers of the process itself, for one scrape."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from control.base.exposition import Readings
from control.base.system.ownprocess import open_descriptors, resident_memory
from control.base.version import VERSION
from proxy.config.schema import Config
from proxy.core.finder import core
from proxy.links.keyring import Keyring
from proxy.pump.loop import Pump
from proxy.telemetry.metrics import catalog

if TYPE_CHECKING:
    from proxy.mesh.follower import MapFollower

BEGUN = time.time()
"""When this module was loaded, which is early in a process's life."""


class ReloadCount:
    """What has become of reloads.

    Attributes:
        results: how many of each; applied_at: when the configuration was applied last, Unix time.
    """

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.applied_at = time.time()

    def done(self, result: str) -> None:
        """One more."""
        self.results[result] = self.results.get(result, 0) + 1
        if result == "applied":
            self.applied_at = time.time()


class ProcessReader:
    """Args:
    keyring: None: links have no certificates.
    draining: whether this process ends with its streams.
    follower: returns it; None: there is no control plane.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        pump: Pump,
        reloads: ReloadCount,
        keyring: Keyring | None,
        draining: Callable[[], bool],
        follower: Callable[[], MapFollower | None],
    ) -> None:
        self._config, self._pump, self._reloads, self._keyring = config, pump, reloads, keyring
        self._draining, self._follower = draining, follower

    def read(self, readings: Readings) -> None:
        """All of it: some 50 µs."""
        pump, add = self._pump, readings.add
        self._turns(readings)
        add(catalog.PUMP_BUSY, pump.busy)
        add(catalog.MEMORY_USED, pump.budget.used + pump.slabs.bytes_held)
        add(catalog.MEMORY_LIMIT, pump.budget.limit)
        if (resident := resident_memory()) is not None:
            add(catalog.RESIDENT, resident)
        add(catalog.CPU, time.process_time())
        if (used := open_descriptors()) is not None:
            add(catalog.DESCRIPTORS, used)
        add(catalog.DESCRIPTORS_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        add(catalog.STARTED, BEGUN)
        add(catalog.DRAINING, int(self._draining()))
        for result in catalog.CLOSED["result"]:
            add(catalog.RELOADS, self._reloads.results.get(result, 0), result)
        add(catalog.RELOADED, self._reloads.applied_at)
        if self._keyring is not None and self._config().links.security == "mtls":
            add(catalog.CERTIFICATE, self._keyring.current.not_after)
        self._map(readings)
        add(catalog.BUILD, 1, VERSION, core(), platform.python_version())

    def _turns(self, readings: Readings) -> None:
        """Turns that are not long are only counted: they are those of the first bucket."""
        long, turns = self._pump.long_turns, self._pump.turns
        counts = [turns - sum(long.counts), *long.counts[1:]]
        counts[0] += long.counts[0]
        readings.buckets(catalog.PUMP_TURN, long.bounds, counts, self._pump.busy, ())

    def _map(self, readings: Readings) -> None:
        follower = self._follower()
        if follower is None:
            return
        standing = follower.standing
        readings.add(catalog.CONTROL_CONNECTED, int(standing.server is not None))
        if standing.heard_at is not None:
            readings.add(catalog.MAP_AGE, max(0.0, time.time() - standing.heard_at))
