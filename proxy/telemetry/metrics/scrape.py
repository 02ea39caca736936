"""The answer to a scrape of a proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
import trio

from control.api.messages import HealthAnswer
from control.base.exposition import Breather, Readings, encoded, lines, uncollected
from control.base.http import CLOSE, HttpRequest, HttpResponse
from control.base.scraping import METRICS, Scraped, content_type
from proxy.telemetry.metrics import catalog
from proxy.telemetry.metrics.collect import NetworkReader
from proxy.telemetry.metrics.handedon import CountsOfOthers
from proxy.telemetry.metrics.process import ProcessReader


class ProxyMetrics:
    """Reads and tells all numbers.

    Args:
        others: what other processes of this host have told.
    """

    def __init__(self, network: NetworkReader, process: ProcessReader, others: CountsOfOthers) -> None:
        self._network, self._process, self._others = network, process, others
        self._one = trio.Lock()

    async def read(self, breather: Breather) -> Readings:
        """This process's own."""
        readings = Readings()
        for _ in self._network.read(readings):
            await breather.breathe()
        await breather.pause()
        self._process.read(readings)
        await breather.breathe()
        return readings

    async def counted(self) -> Readings:
        """This process's own, and what others have counted that are not asked themselves any more."""
        async with self._one:
            readings = await self.read(Breather())
            self._others.counted(readings)
            return readings

    async def answer(self, asked: HttpRequest) -> HttpResponse:
        """To ``GET /metrics``. One at a time: a second one waits."""
        kind, breather = content_type(asked), Breather()
        async with self._one:
            with uncollected():
                body = await self._told(kind.startswith("application/openmetrics-text"), breather)
            return HttpResponse(200, body, kind, (CLOSE,))

    async def _told(self, openmetrics: bool, breather: Breather) -> bytes:
        readings = await self.read(breather)
        await self._others.add_to(readings)
        return await encoded(lines(readings, catalog.ALL, openmetrics), breather)


def routes(metrics: ProxyMetrics, health: Mapping[str, Callable[[], Awaitable[HealthAnswer]]]) -> dict[str, Scraped]:
    """What is answered at ``telemetry.listen``."""
    return {METRICS: metrics.answer, **{path: partial(_healthy, question) for path, question in health.items()}}


async def _healthy(question: Callable[[], Awaitable[HealthAnswer]], asked: HttpRequest) -> HttpResponse:
    found = await question()
    return HttpResponse(200 if found.ok else 503, msgspec.json.encode(found), headers=(CLOSE,))


__all__ = ["ProxyMetrics", "routes"]
