"""The metrics of a control server, and the answer to a scrape. docs/metrics.md lists them; a test compares the two."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from typing import Final

from control.base.exposition import Breather, Family, Readings, encoded, lines
from control.base.http import CLOSE, HttpRequest, HttpResponse
from control.base.scraping import content_type
from control.base.system.ownprocess import open_descriptors, resident_memory
from control.base.version import VERSION
from control.server.clients import Clients
from control.server.mirror import StoreMirror
from control.server.watching import MapWatchers
from control.store.timed import OPERATIONS, TimedStore

__all__ = ["ALL", "CLOSED", "ControlMetrics"]

BEGUN = time.time()
"""When this module was loaded, which is early in a process's life."""
CLOSED: Final[dict[str, tuple[str, ...]]] = {"operation": OPERATIONS}
"""The values that labels have, but for routes (docs/operations.md and /openapi.json have them) and codes of HTTP."""

HOSTS = Family("hostlane_control_hosts", "gauge", "Hosts on the map.")
SERVICES = Family("hostlane_control_services", "gauge", "Services that hosts offer, each host's counted.")
WATCHERS = Family("hostlane_control_watchers", "gauge", "Hosts that follow the map at this server.")
CHANGE = Family(
    "hostlane_control_change_seconds", "histogram", "From a commit until the last watcher has it.", (), "seconds"
)
REQUESTS = Family("hostlane_control_requests", "counter", "Requests answered.", ("route", "code"))
EXPIRED = Family("hostlane_control_leases_expired", "counter", "Hosts that went off the map without a word.")
STORE = Family("hostlane_control_store_seconds", "histogram", "What the store took.", ("operation",), "seconds")
CONNECTED = Family("hostlane_control_store_connected", "gauge", "1: the store can be watched.")
CERTIFICATE = Family(
    "hostlane_control_certificate_expiry_time_seconds", "gauge", "When this server's expires, Unix time.", (), "seconds"
)
RESIDENT = Family("hostlane_control_resident_memory_bytes", "gauge", "Memory that the process has.", (), "bytes")
CPU = Family("hostlane_control_cpu_seconds", "counter", "CPU time of the process.", (), "seconds")
DESCRIPTORS = Family("hostlane_control_descriptors_used", "gauge", "Open descriptors.")
DESCRIPTORS_LIMIT = Family("hostlane_control_descriptors_limit", "gauge", "Descriptors that there may be.")
STARTED = Family("hostlane_control_start_time_seconds", "gauge", "When it began, Unix time.", (), "seconds")
BUILD = Family("hostlane_control_build", "info", "What runs.", ("version", "python"))
ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""In the order of a scrape."""


class ControlMetrics:
    """Args:
    expires: returns the end of validity of this server's certificate, seconds since 1970.
    """

    def __init__(
        self,
        store: TimedStore,
        clients: Clients,
        watching: MapWatchers,
        mirror: StoreMirror,
        expires: Callable[[], float],
    ) -> None:
        self._store, self._clients, self._watching, self._mirror = store, clients, watching, mirror
        self._expires = expires

    def read(self) -> Readings:
        """All of it: some 100 series."""
        readings = Readings()
        add, feed = readings.add, self._watching.feed
        if feed is not None:
            add(HOSTS, len(feed.hosts))
            add(SERVICES, feed.services)
        add(CONNECTED, int(feed is not None))
        add(WATCHERS, self._watching.watchers)
        readings.distribution(CHANGE, self._watching.change_seconds)
        for (route, code), count in self._clients.answered.items():
            add(REQUESTS, count, route, str(code))
        add(EXPIRED, self._mirror.vanished)
        for operation, seconds in self._store.seconds.items():
            readings.distribution(STORE, seconds, operation)
        add(CERTIFICATE, self._expires())
        if (resident := resident_memory()) is not None:
            add(RESIDENT, resident)
        add(CPU, time.process_time())
        if (used := open_descriptors()) is not None:
            add(DESCRIPTORS, used)
        add(DESCRIPTORS_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        add(STARTED, BEGUN)
        add(BUILD, 1, VERSION, platform.python_version())
        return readings

    async def answer(self, asked: HttpRequest) -> HttpResponse:
        """To ``GET /metrics``."""
        kind = content_type(asked)
        text = lines(self.read(), ALL, kind.startswith("application/openmetrics-text"))
        return HttpResponse(200, await encoded(text, Breather()), kind, (CLOSE,))
