"""The admin socket: HTTP/1.1 with JSON answers, one request a connection, for whoever may open the Unix socket.

It shares a process with the data, so what a client can take is bounded: `MAX_CLIENTS` at a time, `CLIENT_TIMEOUT`
seconds and `MAX_HEADER_BYTES` each. What goes wrong with one client is logged and ends with that client (the admin
barrier, in `_Server.serve`); it is none of the three barriers on the data's way (local connection, stream, link).
"""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Protocol

import h11
import msgspec
import structlog
import trio
from trio import TaskStatus

from control import messages

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
_READ_BYTES = 4096


class View(Protocol):
    """What the proxy tells about itself. Each method returns at once with a snapshot and must not block the loop."""

    def status(self) -> messages.Status: ...

    def links(self) -> list[messages.LinkInfo]: ...

    def streams(self) -> list[messages.StreamInfo]: ...


async def serve_admin(
    listener: trio.SocketListener,
    view: View,
    *,
    task_status: TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer admin clients until cancelled.

    Closes ``listener`` and all clients on the way out; the socket's file is its maker's to remove. Raises nothing of
    its own: whatever a client or ``view`` does wrong ends with that client.
    """
    server = _Server({"/status": view.status, "/links": view.links, "/streams": view.streams})
    await trio.serve_listeners(server.serve, [listener], task_status=task_status)


class _Server:
    def __init__(self, routes: dict[str, Callable[[], object]]) -> None:
        self._routes = routes
        self._clients = 0

    async def serve(self, client: trio.SocketStream) -> None:
        """One client from accept to close. Raises nothing but trio.Cancelled."""
        self._clients += 1
        try:
            with trio.move_on_after(CLIENT_TIMEOUT):
                await self._converse(client)
        except trio.BrokenResourceError:
            pass  # The client went away; it knows.
        except Exception:
            # The admin barrier: a mistake in what we tell about streams must not end the proxy that carries them.
            log.exception("admin client failed")
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(client)

    async def _converse(self, client: trio.SocketStream) -> None:
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
        if request is not None:
            await _answer(client, connection, *self._respond(request), body=request.method != b"HEAD")
            await _linger(client)

    def _respond(self, request: h11.Request) -> tuple[int, bytes]:
        """Status and body for a request."""
        if request.method not in (b"GET", b"HEAD"):
            return 405, _refusal(f"method {_text(request.method)} is not allowed; allowed: GET, HEAD")
        path = request.target.partition(b"?")[0]
        handler = self._routes.get(path.decode("latin-1"))
        if handler is None:
            return 404, _refusal(f"no such path {_text(path)}; there are {', '.join(self._routes)}")
        try:
            return 200, msgspec.json.encode(handler())
        except Exception:
            # As the barrier in serve, a step earlier, where an answer can still say so.
            log.exception("admin request failed", path=_text(path))
            return 500, _refusal("the proxy could not answer; its log says why")


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
    client: trio.SocketStream, connection: h11.Connection, status: int, content: bytes, *, body: bool = True
) -> None:
    """Send one whole answer, to HEAD without ``body``. Raises trio.BrokenResourceError when the client is gone."""
    headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
    if status == 405:
        headers.append(("allow", "GET, HEAD"))
    response = h11.Response(status_code=status, headers=headers, reason=http.HTTPStatus(status).phrase)
    data = connection.send(response) or b""
    await client.send_all(data + content if body else data)


async def _linger(client: trio.SocketStream) -> None:
    """Take what is left of a request, a bounded part of it: closing a socket with bytes unread resets the client."""
    await client.send_eof()
    with trio.move_on_after(LINGER_TIMEOUT):
        for _ in range(LINGER_BYTES // _READ_BYTES):
            if not await client.receive_some(_READ_BYTES):
                return


def _refusal(text: str) -> bytes:
    return msgspec.json.encode(messages.Refusal(error=text))


def _text(raw: bytes) -> str:
    """A piece of somebody's request, short, quoted and in printable ASCII."""
    return ascii(raw[:60].decode("latin-1"))
