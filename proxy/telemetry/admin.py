"""The sockets where the proxy is asked: HTTP/1.1 with JSON answers, one request a connection.

At the admin socket GET asks; POST gives an order, whose answer may go on for as long as it is carried out, a JSON
object a line, as that of ``GET /tap`` does for as long as somebody listens. Who may do either is judged when a client
is accepted, by its user and its namespaces (`control.base.system.commanders`); anybody else gets a 403 that says why,
whatever it asks.

The socket for monitoring (``telemetry.socket``) takes no orders and lets nobody tap, which has streams take a longer
way. Whoever reaches it may ask: its directory, mode and group say who does. It tells of names, addresses and numbers;
no answer holds a key, a token or a byte of a stream.

They share a process with the data, so what a client can take is bounded: `MAX_CLIENTS` at a time, `CLIENT_TIMEOUT`
seconds (of an answer that goes on: for each line) and `MAX_HEADER_BYTES` each. What goes wrong with one client is
logged and ends with that client (the admin barrier, in `_Server.serve`); it is none of the three barriers on the data's
way (local connection, stream, link).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import structlog
import trio
from trio import TaskStatus

from control.api import messages
from control.base.http import CLOSE, HttpConnection, HttpLimits, HttpRequest, HttpResponse, ResponseLines
from control.base.reading.addresses import ADMIN_SOCKET
from control.base.scraping import METRICS, Scraped
from control.base.system.commanders import Commanders
from control.base.tokenbucket import TokenBucket
from proxy.links.acceptgate import AcceptGate, serve_gated
from proxy.telemetry.slices import slices
from proxy.telemetry.tap import MOST, TapFilter, Taps

log = structlog.get_logger()

MAX_CLIENTS = 16
"""Clients of one socket at a time. People and a scraper or two; more is a loop that forgot to close, and costs
descriptors."""
CLIENT_TIMEOUT = 10.0
"""Seconds from accept to close: 65,535 streams are 20 MB of JSON, which a Unix socket takes in well under a second."""
MAX_HEADER_BYTES = 8192
"""Request line and headers together, as nginx allows by default; above it (to within a read) the answer is 431."""
LINGER_TIMEOUT = 1.0
"""Seconds that an answered client has to close its end."""
LINGER_BYTES = 65536
"""Bytes that an answered client may still send before it is cut off."""
TAP = "/tap"
LONGEST_DRAIN = 86400.0
"""Seconds that a client may let a drain take: who wants more wants no drain."""
ASKED_PER_SECOND, ASKED_AT_ONCE = 20, 40
"""Questions at the socket for monitoring; further ones wait, and who finds no place either is let go without a word. A
scraper asks every few seconds, a container may ask for ever, and an answer costs milliseconds, which calls wait for."""
ONLY_TELLS = "this socket only tells: commands go to the proxy's admin socket, admin.sock in its run_dir"
LINES_PER_SECOND, LINES_AT_ONCE = 1 / 60, 5
"""Log lines about clients that may not command: a container may ask for ever."""
LIMITS = HttpLimits(
    header_bytes=MAX_HEADER_BYTES,
    read_bytes=4096,
    body=None,  # None of our requests has one.
    idle=math.inf,  # Until the answer is sent, CLIENT_TIMEOUT counts from accept.
    request=math.inf,
    send=CLIENT_TIMEOUT,
    linger=LINGER_TIMEOUT,
    linger_bytes=LINGER_BYTES,
)


class AdminView(Protocol):
    """What the proxy tells about itself. Each method returns at once with a snapshot and must not block the loop; what
    may be long is an iterator, which must cope with what happens between two steps.
    """

    def status(self) -> messages.Status: ...

    def links(self) -> list[messages.LinkInfo]: ...

    def streams(self) -> Iterator[messages.StreamInfo]: ...

    def hosts(self) -> list[messages.MeshHost]: ...

    def services(self) -> list[messages.ServiceRoute]: ...

    async def edges(self) -> messages.Edges:
        """This one may take a second."""


class AdminCommands(Protocol):
    """What a client may have the proxy do."""

    async def reload(self, dry_run: bool = False) -> messages.ReloadResult:
        """Apply the configuration file, or only say what that would do."""

    def drain(self, seconds: float | None) -> AsyncGenerator[messages.DrainProgress, None]:
        """Drain within so many seconds (None: as configured), and tell how that goes until it is over."""


Order = Callable[[str], Awaitable[HttpResponse | ResponseLines]]
"""Gives the order, whose query it is called with."""
Questions = Mapping[str, Callable[[], Awaitable[messages.HealthAnswer]]]
"""By path, what answers it; it may take a while."""


async def serve_admin(
    listeners: list[trio.SocketListener],
    view: AdminView,
    orders: AdminCommands,
    *,
    commanders: Commanders,
    health: Questions | None = None,
    metrics: Scraped | None = None,
    taps: Taps | None = None,
    gate: AcceptGate | None = None,
    task_status: TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer admin clients until cancelled, new ones while the gate is open; `health`, `metrics` and `taps` as well as
    `view`.

    Closes all clients on the way out; ``listeners`` are the caller's to close. Raises nothing of its own: whatever a
    client or ``view`` does wrong ends with that client.
    """
    server = _Server(view, health or {}, orders, commanders, metrics, taps)
    await serve_gated(gate or AcceptGate(), server.serve, listeners, ADMIN_SOCKET, task_status=task_status)


async def serve_telemetry(
    listeners: list[trio.SocketListener],
    view: AdminView,
    path: str,
    *,
    health: Questions,
    gate: AcceptGate,
    metrics: Scraped | None = None,
    task_status: TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve_admin`, for everybody who reaches the socket, which the log calls `path`; there are no orders."""
    server = _Server(view, health, None, None, metrics)
    await serve_gated(gate, server.serve, listeners, path, task_status=task_status)


class _Server:
    """Args:
    orders: None: it takes none.
    commanders: None: everybody may ask.
    """

    def __init__(
        self,
        view: AdminView,
        health: Questions,
        orders: AdminCommands | None,
        commanders: Commanders | None,
        metrics: Scraped | None = None,
        taps: Taps | None = None,
    ) -> None:
        self._health, self._metrics, self._taps = health, metrics, taps
        mesh: dict[str, Callable[[], object]] = {
            "/hosts": view.hosts, "/services": view.services, "/edges": view.edges,
        }
        told: dict[str, Callable[[], object]] = {"/status": view.status, "/links": view.links, "/streams": view.streams}
        self._routes: dict[str, Callable[[], object]] = {**told, **mesh, **health}
        if metrics is not None:
            self._routes[METRICS] = view.status  # a place in the list; `_tell` asks `metrics`
        if taps is not None:
            self._routes[TAP] = view.status  # a place in the list, too
        self._orders: dict[str, Order] = {}
        if orders is not None:
            self._orders = {"/reload": partial(_reload, orders), "/drain": partial(_drain, orders)}
        self._commanders = commanders
        self._pace = TokenBucket(ASKED_PER_SECOND, ASKED_AT_ONCE) if commanders is None else None
        self._lines = TokenBucket(LINES_PER_SECOND, LINES_AT_ONCE)
        self._clients = Counter[bool]()
        """Clients, by whether they may command: those who may not are in nobody's way."""

    async def serve(self, client: trio.SocketStream) -> None:
        """One client from accept to close. Raises nothing but trio.Cancelled."""
        refusal = None if self._commanders is None else self._commanders.refusal(client.socket)
        if refusal is not None and self._lines.take(trio.current_time()):
            log.warning("admin client refused", error=refusal)
        self._clients[refusal is None] += 1
        try:
            with trio.move_on_after(CLIENT_TIMEOUT) as patience:
                await self._converse(client, patience, refusal)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # The client went away, and knows, or takes no more lines of an answer that goes on.
        except Exception:
            # The admin barrier: a mistake in what we tell about streams must not end the proxy that carries them.
            log.exception("admin client failed")
        finally:
            self._clients[refusal is None] -= 1
            await trio.aclose_forcefully(client)

    async def _converse(self, client: trio.SocketStream, patience: trio.CancelScope, refusal: str | None) -> None:
        respond = partial(self._respond, patience, refusal)
        connection = HttpConnection(client, LIMITS, respond, _malformed, send_eof=client.send_eof)
        # The client that is one too many is refused before its request is read: reading is the work that is too much.
        if self._clients[refusal is None] > MAX_CLIENTS:
            if self._pace is not None and not self._pace.take(trio.current_time()):
                return
            await connection.answer(_answer(503, _refusal(f"more than {MAX_CLIENTS} clients at a time")))
        else:
            await self._turn()
            await connection.converse()

    async def _turn(self) -> None:
        """Wait, at the socket for monitoring, until there is one more question to be answered."""
        while self._pace is not None and not self._pace.take(trio.current_time()):  # noqa: ASYNC110 - paced
            await trio.sleep(1 / ASKED_PER_SECOND)

    async def _respond(
        self, patience: trio.CancelScope, refusal: str | None, asked: HttpRequest
    ) -> HttpResponse | ResponseLines:
        if refusal is not None:
            return _answer(403, _refusal(refusal))
        path, _, query = asked.target.partition("?")
        if path == TAP and self._taps is not None and asked.method == "GET":
            patience.deadline = math.inf
            return _tap(self._taps, query)
        order = self._orders.get(path) if asked.method == "POST" else None
        if order is None and asked.method == "POST" and not self._orders:
            return _answer(403, _refusal(ONLY_TELLS))
        if order is None:
            return await self._tell(asked, path)
        patience.deadline = math.inf
        return await order(query)

    async def _tell(self, asked: HttpRequest, path: str) -> HttpResponse:
        """The answer to a GET; to any other request that is not an order, why not."""
        method = asked.method
        handler = self._routes.get(path)
        if handler is None and path not in self._orders:
            paths = ", ".join([*self._routes, *self._orders])
            return _answer(404, _refusal(f"no such path {_text(path)}; there are {paths}"))
        allowed = "GET, HEAD" if handler is not None else "POST"
        if handler is None or method not in ("GET", "HEAD"):
            what = f"method {_text(method)} is not allowed for {path}"
            return _answer(405, _refusal(f"{what}; allowed: {allowed}"), ("allow", allowed))
        try:
            if path == METRICS and self._metrics is not None:
                return await self._metrics(asked)
            if (question := self._health.get(path)) is not None:
                found = await question()
                return _answer(200 if found.ok else 503, msgspec.json.encode(found))
            return _answer(200, await _encoded(handler()))
        except Exception:
            # A barrier as in `serve`, here, where the client can still get a 500.
            log.exception("admin request failed", path=_text(path))
            return _answer(500, _refusal("the proxy could not answer; its log says why"))


async def _reload(orders: AdminCommands, query: str) -> HttpResponse:
    if query not in ("", "dry_run=yes"):
        return _answer(400, _refusal(f"query {_text(query)} is not allowed; allowed: dry_run=yes"))
    return _answer(200, msgspec.json.encode(await (orders.reload(dry_run=True) if query else orders.reload())))


async def _drain(orders: AdminCommands, query: str) -> HttpResponse | ResponseLines:
    try:
        seconds = _seconds(query)
    except ValueError as error:
        return _answer(400, _refusal(str(error)))

    async def lines(send: Callable[[bytes], Awaitable[None]]) -> None:
        async with aclosing(orders.drain(seconds)) as found:
            async for line in found:
                await send(msgspec.json.encode(line) + b"\n")

    return lines


def _tap(taps: Taps, query: str) -> HttpResponse | ResponseLines:
    try:
        wanted = TapFilter.of(parse_qs(query, keep_blank_values=True))
    except ValueError as error:
        return _answer(400, _refusal(str(error)))
    if taps.full:
        return _answer(503, _refusal(f"{MOST} watch streams already; allowed: {MOST} at a time"))
    return partial(taps.follow, wanted)


async def _encoded(found: object) -> bytes:
    if isinstance(found, Awaitable):
        found = await found
    if not isinstance(found, Iterator):
        return msgspec.json.encode(found)
    async with aclosing(slices(found)) as parts:
        return b"[" + b",".join([msgspec.json.encode(part)[1:-1] async for part in parts]) + b"]"


def _answer(status: int, content: bytes, *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, content, headers=(CLOSE, *headers))


def _malformed(status: int, what: str) -> bytes:
    """The body of a refusal by `HttpConnection`: with our limits it refuses only what is not HTTP."""
    return _refusal("not a valid HTTP/1.1 request")


def _refusal(text: str) -> bytes:
    return msgspec.json.encode(messages.AdminErrorBody(error=text))


def _seconds(query: str) -> float | None:
    """What the query says about it. Raises ValueError with a line for the client."""
    found = parse_qs(query, keep_blank_values=True)
    text = found.pop("seconds", [""])[-1]
    if found or (query and not text):
        raise ValueError(f"query {_text(query)} is not allowed; allowed: seconds=NUMBER")
    try:
        seconds = float(text) if text else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 <= seconds <= LONGEST_DRAIN:
        raise ValueError(f"seconds {_text(text)} are not allowed; allowed: 0 to {LONGEST_DRAIN:g}")
    return seconds


def _text(raw: str) -> str:
    """A piece of somebody's request, short, quoted and in printable ASCII."""
    return ascii(raw[:60])
