"""The admin socket: HTTP/1.1 with JSON answers, one request a connection, for whoever may open the Unix socket.

GET asks; POST gives an order, whose answer may go on for as long as it is carried out, a JSON object a line.

It shares a process with the data, so what a client can take is bounded: `MAX_CLIENTS` at a time, `CLIENT_TIMEOUT`
seconds (of an answer that goes on: for each line) and `MAX_HEADER_BYTES` each. What goes wrong with one client is
logged and ends with that client (the admin barrier, in `_Server.serve`); it is none of the three barriers on the data's
way (local connection, stream, link).
"""

from __future__ import annotations

import http
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Protocol
from urllib.parse import parse_qs

import h11
import msgspec
import structlog
import trio
from trio import TaskStatus

from control.api import messages
from proxy.links.door import Door, serve_behind
from proxy.telemetry.slices import slices

log = structlog.get_logger()

MAX_CLIENTS = 16
"""Clients at a time. People and a scraper or two; more is a loop that forgot to close, and costs descriptors."""
CLIENT_TIMEOUT = 10.0
"""Seconds from accept to close: 65,535 streams are 20 MB of JSON, which a Unix socket takes in well under a second."""
MAX_HEADER_BYTES = 8192
"""Request line and headers together, as nginx allows by default; above it (to within a read) the answer is 431."""
LINGER_TIMEOUT = 1.0
"""Seconds that an answered client has to close its end."""
LINGER_BYTES = 65536
"""Bytes that an answered client may still send before it is cut off."""
LONGEST_DRAIN = 86400.0
"""Seconds that a client may let a drain take: who wants more wants no drain."""
_READ_BYTES = 4096


class View(Protocol):
    """What the proxy tells about itself. Each method returns at once with a snapshot and must not block the loop; what
    may be long is an iterator, which must cope with what happens between two steps.
    """

    def status(self) -> messages.Status: ...

    def links(self) -> list[messages.LinkInfo]: ...

    def streams(self) -> Iterator[messages.StreamInfo]: ...

    def hosts(self) -> list[messages.MeshHost]: ...

    def services(self) -> list[messages.ServiceRoute]: ...


class Orders(Protocol):
    """What a client may have the proxy do."""

    async def reload(self) -> messages.Applied:
        """Apply the configuration file."""

    def drain(self, seconds: float | None) -> AsyncGenerator[messages.Draining, None]:
        """Drain within so many seconds (None: as configured), and tell how that goes until it is over."""


async def serve_admin(
    listener: trio.SocketListener,
    view: View,
    orders: Orders,
    *,
    door: Door | None = None,
    task_status: TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer admin clients until cancelled, new ones while the door is open.

    Closes ``listener`` and all clients on the way out; the socket's file is its maker's to remove. Raises nothing of
    its own: whatever a client or ``view`` does wrong ends with that client.
    """
    mesh: dict[str, Callable[[], object]] = {"/hosts": view.hosts, "/services": view.services}
    server = _Server({"/status": view.status, "/links": view.links, "/streams": view.streams, **mesh}, orders)
    try:
        await serve_behind(door or Door(), server.serve, [listener], task_status=task_status)
    finally:
        listener.socket.close()


class _Server:
    def __init__(self, routes: dict[str, Callable[[], object]], orders: Orders) -> None:
        self._routes = routes
        self._orders = {"/reload": self._reload, "/drain": self._drain}
        self._given = orders
        self._clients = 0

    async def serve(self, client: trio.SocketStream) -> None:
        """One client from accept to close. Raises nothing but trio.Cancelled."""
        self._clients += 1
        try:
            with trio.move_on_after(CLIENT_TIMEOUT) as patience:
                await self._converse(client, patience)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # The client went away, and knows, or takes no more lines of an answer that goes on.
        except Exception:
            # The admin barrier: a mistake in what we tell about streams must not end the proxy that carries them.
            log.exception("admin client failed")
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(client)

    async def _converse(self, client: trio.SocketStream, patience: trio.CancelScope) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        # The client that is one too many gets its answer unread: reading is what there is too much of.
        if self._clients > MAX_CLIENTS:
            await _answer(client, connection, 503, _refusal(f"more than {MAX_CLIENTS} clients at a time"))
            return
        try:
            request = await _request(client, connection)
        except h11.RemoteProtocolError as error:
            await _answer(client, connection, error.error_status_hint, _refusal("not a valid HTTP/1.1 request"))
            await _linger(client)
            return
        if request is None:
            return
        order = self._orders.get(_path(request)) if request.method == b"POST" else None
        if order is not None:
            patience.deadline = float("inf")
            await order(client, connection, request)
            await _linger(client)
        else:
            status, content, allow = await self._respond(request)
            await _answer(client, connection, status, content, body=request.method != b"HEAD", allow=allow)
            await _linger(client)

    async def _respond(self, request: h11.Request) -> tuple[int, bytes, str]:
        """Status and body for a question, or for an order that is none, and the methods that are allowed there."""
        path = _path(request)
        handler = self._routes.get(path)
        if handler is None and path not in self._orders:
            paths = ", ".join([*self._routes, *self._orders])
            return 404, _refusal(f"no such path {_text(path)}; there are {paths}"), ""
        allowed = "GET, HEAD" if handler is not None else "POST"
        if handler is None or request.method not in (b"GET", b"HEAD"):
            what = f"method {_text(request.method)} is not allowed for {path}"
            return 405, _refusal(f"{what}; allowed: {allowed}"), allowed
        try:
            return 200, await _encoded(handler()), allowed
        except Exception:
            # As the barrier in serve, a step earlier, where an answer can still say so.
            log.exception("admin request failed", path=_text(path))
            return 500, _refusal("the proxy could not answer; its log says why"), allowed

    async def _reload(self, client: trio.SocketStream, connection: h11.Connection, request: h11.Request) -> None:
        await _answer(client, connection, 200, msgspec.json.encode(await self._given.reload()))

    async def _drain(self, client: trio.SocketStream, connection: h11.Connection, request: h11.Request) -> None:
        try:
            seconds = _seconds(request)
        except ValueError as error:
            return await _answer(client, connection, 400, _refusal(str(error)))
        headers = [("content-type", "application/x-ndjson"), ("connection", "close")]
        await client.send_all(connection.send(h11.Response(status_code=200, headers=headers)) or b"")
        async with aclosing(self._given.drain(seconds)) as lines:
            async for line in lines:
                data = h11.Data(data=msgspec.json.encode(line) + b"\n")
                with trio.fail_after(CLIENT_TIMEOUT):
                    await client.send_all(connection.send(data) or b"")
        await client.send_all(connection.send(h11.EndOfMessage()) or b"")


async def _request(client: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """The head of the client's request; None if it left without one. A body, which none of ours has, stays unread.

    Raises h11.RemoteProtocolError for what is not a request, trio.BrokenResourceError when the client is gone.
    """
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await client.receive_some(_READ_BYTES))


async def _answer(
    client: trio.SocketStream,
    connection: h11.Connection,
    status: int,
    content: bytes,
    *,
    body: bool = True,
    allow: str = "",
) -> None:
    """Send one whole answer, to HEAD without ``body``. Raises trio.BrokenResourceError when the client is gone."""
    headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
    if status == 405:
        headers.append(("allow", allow))
    response = h11.Response(status_code=status, headers=headers, reason=http.HTTPStatus(status).phrase)
    data = connection.send(response) or b""
    await client.send_all(data)
    if body:
        await client.send_all(content)


async def _encoded(found: object) -> bytes:
    if not isinstance(found, Iterator):
        return msgspec.json.encode(found)
    async with aclosing(slices(found)) as parts:
        return b"[" + b",".join([msgspec.json.encode(part)[1:-1] async for part in parts]) + b"]"


async def _linger(client: trio.SocketStream) -> None:
    """Take what is left of a request, a bounded part of it: closing a socket with bytes unread resets the client."""
    await client.send_eof()
    with trio.move_on_after(LINGER_TIMEOUT):
        for _ in range(LINGER_BYTES // _READ_BYTES):
            if not await client.receive_some(_READ_BYTES):
                return


def _refusal(text: str) -> bytes:
    return msgspec.json.encode(messages.Refusal(error=text))


def _path(request: h11.Request) -> str:
    return bytes(request.target).partition(b"?")[0].decode("latin-1")


def _seconds(request: h11.Request) -> float | None:
    """What the query says about it. Raises ValueError with a line for the client."""
    query = bytes(request.target).partition(b"?")[2].decode("latin-1")
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


def _text(raw: bytes | str) -> str:
    """A piece of somebody's request, short, quoted and in printable ASCII."""
    return ascii(raw[:60].decode("latin-1") if isinstance(raw, bytes) else raw[:60])
