"""Where a scraper asks, over TCP: GET and HEAD of a few paths, and nothing that changes anything.

A browser must not be talked into asking for somebody else (DNS rebinding): the Host of a request must be an IP address,
which no name of an attacker's is, ``localhost``, or one of the names that the configuration allows.

It shares a process with what is measured, so what a client can take is bounded: MAX_CLIENTS at a time, CLIENT_TIMEOUT
and MAX_HEADER_BYTES each. What goes wrong with one client ends with that client.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

import structlog
import trio

from control.base.exposition import OPENMETRICS, TEXT
from control.base.http import CLOSE, HttpConnection, HttpLimits, HttpRequest, HttpResponse
from control.base.reading.addresses import is_ip

__all__ = ["METRICS", "ScrapeServer", "Scraped", "host_refusal", "wants_openmetrics"]

log = structlog.get_logger()

METRICS = "/metrics"
MAX_CLIENTS = 16
"""At a time: a scraper or two, and people. More is a loop that forgot to close, and costs descriptors."""
CLIENT_TIMEOUT = 10.0
"""Seconds from accept to close; Prometheus gives a scrape as long by default (scrape_timeout)."""
MAX_HEADER_BYTES = 8192
LIMITS = HttpLimits(
    header_bytes=MAX_HEADER_BYTES,
    read_bytes=4096,
    body=None,
    idle=math.inf,  # Until the answer is sent, CLIENT_TIMEOUT counts from accept.
    request=math.inf,
    send=CLIENT_TIMEOUT,
    linger=1.0,
    linger_bytes=65536,
)
ALLOWED = "GET, HEAD"
OPEN, VERSIONS = "application/openmetrics-text", ("1.0.0", "0.0.1")
PLAIN = "text/plain; charset=utf-8"

Scraped = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers a GET; a HEAD gets the same without its body."""


class ScrapeServer:
    """Answers clients at one listener.

    Args:
        routes: by path, what answers it.
        hosts: names that a Host may say, besides IP addresses and localhost; as in the configuration.
        key: the configuration's name of `hosts`, for who is refused.
    """

    def __init__(self, routes: Mapping[str, Scraped], hosts: Collection[str], key: str = "telemetry.hosts") -> None:
        self._routes, self._hosts, self._key = routes, frozenset(map(str.lower, hosts)), key
        self._clients = 0

    async def serve(self, client: trio.SocketStream) -> None:
        """One client from accept to close. Raises nothing but trio.Cancelled."""
        self._clients += 1
        try:
            with trio.move_on_after(CLIENT_TIMEOUT):
                connection = HttpConnection(client, LIMITS, self._respond, _malformed, send_eof=client.send_eof)
                if self._clients > MAX_CLIENTS:
                    await connection.answer(_plain(503, f"more than {MAX_CLIENTS} clients at a time"))
                else:
                    await connection.converse()
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # The client went away, and knows.
        except Exception:
            # A mistake in what we tell must not end what tells it.
            log.exception("telemetry client failed")
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(client)

    async def _respond(self, asked: HttpRequest) -> HttpResponse:
        if (why := host_refusal(asked.header("host"), self._hosts, self._key)) is not None:
            return _plain(421, why)
        path = asked.target.partition("?")[0]
        route = self._routes.get(path)
        if route is None:
            return _plain(404, f"no such path {path[:60]!a}; there are {', '.join(self._routes)}")
        if asked.method not in ("GET", "HEAD"):
            return _plain(405, f"method {asked.method[:60]!a} is not allowed; allowed: {ALLOWED}", ("allow", ALLOWED))
        try:
            return await route(asked)
        except Exception:
            # As in `serve`, here, where the client can still get a 500.
            log.exception("telemetry request failed", path=ascii(path[:60]))
            return _plain(500, "no answer: the log says why")


def host_refusal(host: str, names: Collection[str], key: str) -> str | None:
    """Why a request with this Host is not answered; None: it is."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    if name == "localhost" or is_ip(name) or name in names:
        return None
    return f"Host {host[:60]!a} is not allowed; allowed: an IP address, localhost, or a name in {key}"


def wants_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics goes before the text format for whoever sends this Accept."""
    best: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = [each.strip().lower() for each in part.split(";")]
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
            elif kind == OPEN and name.strip() == "version" and value not in VERSIONS:
                quality = 0.0
        best[kind] = max(best.get(kind, 0.0), quality)
    other = max(best.get("text/plain", 0.0), best.get("text/*", 0.0), best.get("*/*", 0.0))
    return best.get(OPEN, 0.0) > 0 and best[OPEN] >= other


def content_type(asked: HttpRequest) -> str:
    """Of the answer to a scrape."""
    return OPENMETRICS if wants_openmetrics(asked.header("accept")) else TEXT


def _malformed(status: int, what: str) -> bytes:
    return b"not a valid HTTP/1.1 request\n"


_plain_answer = partial(HttpResponse, content_type=PLAIN)


def _plain(status: int, text: str, *headers: tuple[str, str]) -> HttpResponse:
    return _plain_answer(status, f"{text}\n".encode(), headers=(CLOSE, *headers))
