"""Answers to the browser: three files, and what they show, as JSON. GET only; the listener says so to everything else,
and checks who asks (`control.base.scraping`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from time import monotonic

import msgspec
import trio
from msgspec import Struct

from control.api.messages import Discovery, EdgeInfo, Ejection, LinkInfo, PeerStatus
from control.base.http import CLOSE, HttpRequest, HttpResponse
from proxy.telemetry.page import changes
from proxy.telemetry.page.changes import Changes
from proxy.telemetry.page.problems import Seen, problems
from proxy.telemetry.view import ProxyView

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    CLOSE,
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
)
FRESH = 0.5
"""Seconds for which an answer is good enough for whoever asks next."""
MOST_ROWS = 1000
"""Edges, and links, that are sent, the busiest; ``hostlane edges`` has them all."""


class Problem(Struct, frozen=True, kw_only=True):
    """What is broken, where, and since when (seconds since 1970)."""

    kind: str
    name: str
    text: str
    since: float


class PageState(Struct, frozen=True, kw_only=True):
    """All that the page shows. ``at``: seconds since 1970."""

    at: float
    host: str
    version: str
    uptime_s: float
    streams: int
    opened: int
    failed: int
    memory_used: int
    memory_limit: int
    handshakes_avoided: int
    draining: bool
    control: Discovery | None
    problems: list[Problem]
    peers: list[PeerStatus]
    links: list[LinkInfo]
    ejected: list[Ejection]
    edges: list[EdgeInfo]
    more_edges: int
    more_links: int


class Page:
    """Serves the page of a proxy."""

    def __init__(self, view: ProxyView) -> None:
        self._view = view
        self._changes = Changes(time.time)
        self._one = trio.Lock()
        self._last, self._at = b"", -FRESH
        self._encode = msgspec.json.Encoder().encode

    @property
    def routes(self) -> Mapping[str, Callable[[HttpRequest], Awaitable[HttpResponse]]]:
        """By path, what answers it."""
        static = {path: partial(_file, name, kind) for path, (name, kind) in FILES.items()}
        return {**static, "/state.json": self._state}

    async def run(self) -> None:
        """Notice what changes, until cancelled."""
        await changes.run(lambda: self._changes.look(self._view.peers()))

    async def _state(self, asked: HttpRequest) -> HttpResponse:
        async with self._one:
            if monotonic() - self._at >= FRESH:
                self._last = self._encode(await self._read())
                self._at = monotonic()
        return HttpResponse(200, self._last, "application/json", HEADERS)

    async def _read(self) -> PageState:
        view = self._view
        edges = (await view.edges()).edges
        counts, peers, links = view.counts(), view.peers(), view.links()
        self._changes.look(peers)
        seen = Seen(
            host=counts.host,
            peers=peers,
            links=links,
            edges=edges,
            ejected=(ejected := view.ejected()),
            offered=view.offered(),
            missing=counts.missing,
            control=counts.control,
            memory_used=counts.memory_used,
            memory_limit=counts.memory_limit,
            flapping=self._changes.flapping,
        )
        found = problems(seen)
        return PageState(
            at=time.time(),
            host=counts.host,
            version=version("hostlane"),
            uptime_s=counts.uptime_s,
            streams=counts.streams,
            opened=counts.opened,
            failed=counts.failed,
            memory_used=counts.memory_used,
            memory_limit=counts.memory_limit,
            handshakes_avoided=counts.handshakes_avoided,
            draining=counts.draining,
            control=counts.control,
            problems=[
                Problem(kind=each.kind, name=each.name, text=each.text, since=since)
                for each, since in zip(found, self._changes.since(found), strict=True)
            ],
            peers=peers,
            links=links[:MOST_ROWS],
            ejected=ejected,
            edges=edges[:MOST_ROWS],
            more_edges=max(0, len(edges) - MOST_ROWS),
            more_links=max(0, len(links) - MOST_ROWS),
        )


async def _file(name: str, kind: str, asked: HttpRequest) -> HttpResponse:
    return HttpResponse(200, read(name), kind, HEADERS)


def read(name: str) -> bytes:
    """One of the page's files."""
    return (files("proxy.telemetry.page") / "static" / name).read_bytes()
