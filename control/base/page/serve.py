"""Answers to the browser: three files, and what they show, as JSON. GET only; the listener says so to everything else,
and checks who asks (`control.base.scraping`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from time import monotonic

import msgspec
import trio

from control.base.http import CLOSE, HttpRequest, HttpResponse

__all__ = ["FILES", "HEADERS", "LONGEST_QUERY", "POLICY", "STATE", "PageServer", "read"]

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
STATE = "/state.json"
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
LONGEST_QUERY = 500
"""Characters of what is asked for; the rest is cut off."""
MOST_KEPT = 16
"""Answers that are kept: as many as there are clients at a time."""


class PageServer:
    """Serves the page.

    Args:
        read: what the page shows, for what stands behind the ``?`` of a request.
        fresh: seconds for which an answer is good enough for whoever asks the same next.
    """

    def __init__(self, read: Callable[[str], Awaitable[object]], fresh: float) -> None:
        self._read, self._fresh = read, fresh
        self._one = trio.Lock()
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._encode = msgspec.json.Encoder().encode

    @property
    def routes(self) -> Mapping[str, Callable[[HttpRequest], Awaitable[HttpResponse]]]:
        """By path, what answers it."""
        static = {path: partial(_file, name, kind) for path, (name, kind) in FILES.items()}
        return {**static, STATE: self._state}

    async def _state(self, asked: HttpRequest) -> HttpResponse:
        query = asked.target.partition("?")[2][:LONGEST_QUERY]
        async with self._one:
            at, answer = self._kept.get(query, (-self._fresh, b""))
            if monotonic() - at >= self._fresh:
                answer = self._encode(await self._read(query))
                self._kept[query] = monotonic(), answer
            self._kept.move_to_end(query)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return HttpResponse(200, answer, "application/json", HEADERS)


async def _file(name: str, kind: str, asked: HttpRequest) -> HttpResponse:
    return HttpResponse(200, read(name), kind, HEADERS)


def read(name: str) -> bytes:
    """One of the page's files."""
    return (files("control.base.page") / "static" / name).read_bytes()
