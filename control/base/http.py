"""One client's connection to a server: HTTP/1.1 by h11, one request after another, each phase with a deadline and a
bound. What is particular to a server are arguments: how much a client can take, how a refusal reads, how it closes.

What a client does wrong ends with that client: it gets one answer that says so where HTTP still allows one, and the
connection is closed. Strict: what h11 does not take for HTTP/1.1 is refused, and so is a body that nobody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11
import trio
from trio.abc import Stream

__all__ = ["CLOSE", "SEND_BYTES", "HttpConnection", "HttpLimits", "HttpRequest", "HttpResponse", "ResponseLines"]

SEND_BYTES = 64 << 10
"""A long answer goes out in pieces of this size, each with its own deadline."""
CLOSE = ("connection", "close")
"""The header of an answer after which none follows."""


@dataclass(frozen=True)
class HttpLimits:
    """How much one client can take, in bytes and seconds.

    Attributes:
        header_bytes: request line and headers together; above it (to within a read) it is 431.
        read_bytes: taken from the stream at a time.
        body: above it, it is 413. None: requests are answered when their headers are there, whatever follows is
            dropped, and so there is one request a connection; each answer must have the header `CLOSE`.
        idle: until a request begins; who lets it pass is let go without a word.
        request: until a request that has begun is there; after it, it is 408.
        send: for each piece of an answer.
        linger, linger_bytes: what a client that has not been heard to the end may go on sending after its answer: a
            close with bytes unread would be a reset, and the answer might be lost with it.
    """

    header_bytes: int
    read_bytes: int
    body: int | None
    idle: float
    request: float
    send: float
    linger: float
    linger_bytes: int


@dataclass(frozen=True)
class HttpRequest:
    """A request that has arrived whole, or but for its body if the limits allow none. `headers`: names in small
    letters.
    """

    method: str
    target: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def header(self, name: str) -> str:
        """What the header says, all of them that have this name, joined; empty: there is none."""
        wanted = name.encode("ascii")
        return ", ".join(value.decode("latin-1") for found, value in self.headers if found == wanted)


@dataclass(frozen=True)
class HttpResponse:
    """A whole answer. `headers`: further ones, such as the ``allow`` of a 405."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


ResponseLines = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
"""An answer without end: called with the function that sends a piece, it returns when it ends."""


class HttpConnection:
    """See the module's text.

    Args:
        stream: stays the caller's to close.
        respond: answers a request. What it raises ends the connection, and comes out of `converse`.
        refusal: the body, in JSON, of an answer that is given here, without `respond`: of its status, and of what is
            wrong with a request that is no HTTP (400, 431, 501); "" with 408 and 413 (see the limits), and with 429:
            `may_ask` says no.
        may_ask: whether this client may make one more request now.
        stopping: whether this server is about to end: no connection is kept for another request.
        send_eof: ends our direction of the stream, so that a client knows the end of its answer while it is waited
            for (`HttpLimits.linger`). None: both directions end together, when the caller closes the stream.
    """

    def __init__(
        self,
        stream: Stream,
        limits: HttpLimits,
        respond: Callable[[HttpRequest], Awaitable[HttpResponse | ResponseLines]],
        refusal: Callable[[int, str], bytes],
        *,
        may_ask: Callable[[], bool] = lambda: True,
        stopping: Callable[[], bool] = lambda: False,
        send_eof: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._respond = respond
        self._refusal = refusal
        self._may_ask = may_ask
        self._stopping = stopping
        self._send_eof = send_eof
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._idle = trio.CancelScope()

    def end_if_idle(self) -> None:
        """End the connection, unless a request is under way."""
        self._idle.cancel()

    async def converse(self) -> None:
        """Answer requests until either side has had enough.

        Raises trio.BrokenResourceError when the client is gone, trio.TooSlowError when it does not take its answer, and
        what `respond` raises.
        """
        while True:
            try:
                if not await self._one():
                    return
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint if error.error_status_hint >= 400 else 400
                await self._refuse(status, " ".join(str(error).split())[:200])
                return

    async def answer(self, answer: HttpResponse, *, body: bool = True) -> None:
        """Send an answer, without its `body` to a HEAD. Raises as `converse`. It may be called once instead of
        `converse`, to answer a client before its request is read.
        """
        headers = [("content-type", answer.content_type)] if answer.body else []
        if answer.status != HTTPStatus.NO_CONTENT:
            headers.append(("content-length", str(len(answer.body))))
        headers.extend(answer.headers)
        if CLOSE not in headers and self._stopping():
            headers.append(CLOSE)
        head = self._http.send(_response(answer.status, headers)) or b""
        content = answer.body if body else b""
        if content:
            self._http.send(h11.Data(data=content))  # Returns it unchanged, as its length is in the headers.
        self._http.send(h11.EndOfMessage())
        # The first piece of the body goes with the head; the rest, which may be megabytes, is not copied.
        room = SEND_BYTES - len(head)
        await self._answered(head + content[:room], memoryview(content)[room:])

    async def _one(self) -> bool:
        """One request and its answer; returns whether another may follow."""
        if not await self._first_bytes():
            return False
        with trio.move_on_after(self._limits.request) as patience:
            asked = await self._request()
        if patience.cancelled_caught:
            await self._refuse(408)
            return False
        if asked is None:
            return False
        answer = await self._respond(asked)
        if isinstance(answer, HttpResponse):
            await self.answer(answer, body=asked.method != "HEAD")
        else:
            await self._stream_lines(answer)
        if self._limits.body is None:
            await self._linger()
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _first_bytes(self) -> bool:
        """Wait for the next request to begin; False: none comes."""
        if self._http.trailing_data[0]:
            return True
        if self._stopping():
            return False
        with trio.move_on_after(self._limits.idle) as self._idle:
            data = await self._stream.receive_some(self._limits.read_bytes)
            self._http.receive_data(bytes(data))
            return bool(data)
        return False

    async def _request(self) -> HttpRequest | None:
        """The request; None if the client left, or has been refused already. Raises h11.RemoteProtocolError."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        if not self._may_ask():
            await self._refuse(429)
            return None
        body = bytearray()
        if self._limits.body is not None:
            length = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
            if length > self._limits.body:
                await self._refuse(413)
                return None
            if self._http.they_are_waiting_for_100_continue:
                await self._answered(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                if len(body) > self._limits.body:
                    await self._refuse(413)
                    return None
            if not isinstance(event, h11.EndOfMessage):
                return None
        target = head.target.decode("latin-1")
        return HttpRequest(head.method.decode("ascii"), target, bytes(body), tuple(head.headers))

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(self._limits.read_bytes)))
        return event

    async def _refuse(self, status: int, what: str = "") -> None:
        """Say no, and end the connection."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self.answer(HttpResponse(status, self._refusal(status, what), headers=(CLOSE,)))
        await self._linger()

    async def _linger(self) -> None:
        """Take what the client still sends, a bounded part of it."""
        if self._send_eof is not None:
            await self._send_eof()
        with trio.move_on_after(self._limits.linger):
            for _ in range(self._limits.linger_bytes // self._limits.read_bytes):
                if not await self._stream.receive_some(self._limits.read_bytes):
                    return

    async def _stream_lines(self, lines: ResponseLines) -> None:
        """An answer in chunks, until `lines` ends it."""
        headers = [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked"), CLOSE]
        # One scope for all pieces: setting one up is a tenth of what sending a line costs, and a thousand clients
        # get each line.
        with trio.CancelScope() as patience:

            async def send(piece: bytes) -> None:
                await self._send(self._http.send(h11.Data(data=piece)) or b"", patience)

            await self._send(self._http.send(_response(200, headers)) or b"", patience)
            await lines(send)
            await self._send(self._http.send(h11.EndOfMessage()) or b"", patience)
        if patience.cancelled_caught:
            raise trio.TooSlowError

    async def _answered(self, *parts: bytes | memoryview) -> None:
        with trio.CancelScope() as patience:
            for part in parts:
                await self._send(part, patience)
        if patience.cancelled_caught:
            raise trio.TooSlowError

    async def _send(self, data: bytes | memoryview, patience: trio.CancelScope) -> None:
        """Send in pieces of `SEND_BYTES`, each with a deadline of its own, for which `patience` is set anew."""
        for start in range(0, len(data), SEND_BYTES):
            patience.deadline = trio.current_time() + self._limits.send
            await self._stream.send_all(memoryview(data)[start : start + SEND_BYTES])
        patience.deadline = math.inf


def _response(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
