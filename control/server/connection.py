"""One client's connection: HTTP/1.1 by h11, one request after another, each phase with a deadline and a bound.

What a client does wrong ends with that client: it gets one answer that says so where HTTP still allows one, and the
connection is closed. Strict: what h11 does not take for HTTP/1.1 is refused, and so is a body that nobody asked for.
"""

from __future__ import annotations

import http
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11
import msgspec
import trio
from trio.abc import Stream

from control.api.mesh import Refused
from control.server.config import Limits

__all__ = ["Answer", "Asked", "Connection", "Lines"]

MAX_HEADER_BYTES = 16 << 10
"""Request line and headers together, twice what nginx allows by default; above it (to within a read) it is 431."""
READ_BYTES = 16 << 10
SEND_BYTES = 64 << 10
"""A long answer goes out in pieces of this size, each with its own deadline."""
LINGER, LINGER_BYTES = 1.0, 1 << 20
"""Seconds, and bytes, that a refused client may go on sending: a close with bytes unread would be a reset, and the
refusal might be lost with it."""


@dataclass(frozen=True)
class Asked:
    """A request that has arrived whole."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A whole answer. `allow`: of a 405."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    allow: str | None = None


Lines = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
"""An answer without end: called with the function that sends a piece, it returns when it ends."""


class Connection:
    """See the module's text.

    Args:
        respond: answers a request that has arrived whole. Raises nothing but trio.Cancelled, and
            trio.BrokenResourceError if the client has left meanwhile.
        may_ask: whether this client may make one more request now.
        stopping: whether this server is about to end: no connection is kept for another request.
    """

    def __init__(
        self,
        stream: Stream,
        limits: Limits,
        respond: Callable[[Asked], Awaitable[Answer | Lines]],
        may_ask: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._respond = respond
        self._may_ask = may_ask
        self._stopping = stopping
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._idle = trio.CancelScope()

    def end_if_idle(self) -> None:
        """End the connection, unless a request is under way."""
        self._idle.cancel()

    async def converse(self) -> None:
        """Answer requests until either side has had enough.

        Raises trio.BrokenResourceError when the client is gone, and trio.TooSlowError when it does not take its answer.
        The caller closes the stream.
        """
        while True:
            try:
                if not await self._one():
                    return
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint if error.error_status_hint >= 400 else 400
                await self._refuse(
                    status, "http", f"not a valid HTTP/1.1 request: {' '.join(str(error).split())[:200]}"
                )
                return

    async def _one(self) -> bool:
        """One request and its answer; returns whether another may follow."""
        if not await self._first_bytes():
            return False
        with trio.move_on_after(self._limits.request_timeout) as patience:
            asked = await self._request()
        if patience.cancelled_caught:
            await self._refuse(408, "slow", f"the request took more than {self._limits.request_timeout:g} s to arrive")
            return False
        if asked is None:
            return False
        answer = await self._respond(asked)
        if not isinstance(answer, Answer):
            await self._stream_lines(answer)
            return False
        await self._answer(answer, body=asked.method != "HEAD")
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
        with trio.move_on_after(self._limits.idle_timeout) as self._idle:
            data = await self._stream.receive_some(READ_BYTES)
            self._http.receive_data(bytes(data))
            return bool(data)
        return False

    async def _request(self) -> Asked | None:
        """The request; None if the client left, or has been refused already. Raises h11.RemoteProtocolError."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        if not self._may_ask():
            await self._refuse(429, "too_many", "too many requests from this address; ask again in a second")
            return None
        length = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        if length > self._limits.body:
            await self._too_large()
            return None
        if self._http.they_are_waiting_for_100_continue:
            await self._answered(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._limits.body:
                await self._too_large()
                return None
        if not isinstance(event, h11.EndOfMessage):
            return None
        return Asked(head.method.decode("ascii"), head.target.decode("latin-1"), bytes(body))

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(READ_BYTES)))
        return event

    async def _too_large(self) -> None:
        await self._refuse(413, "too_large", f"the body is too large; allowed: {self._limits.body} bytes")

    async def _refuse(self, status: int, code: str, text: str) -> None:
        """Say no, and end the connection."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._answer(Answer(status, msgspec.json.encode(Refused(error=text, code=code))), last=True)
        with trio.move_on_after(LINGER):
            for _ in range(LINGER_BYTES // READ_BYTES):
                if not await self._stream.receive_some(READ_BYTES):
                    return

    async def _answer(self, answer: Answer, *, body: bool = True, last: bool = False) -> None:
        headers = [("content-type", answer.content_type)] if answer.body else []
        if answer.status != 204:
            headers.append(("content-length", str(len(answer.body))))
        if answer.allow is not None:
            headers.append(("allow", answer.allow))
        if last or self._stopping():
            headers.append(("connection", "close"))
        parts = [self._http.send(_response(answer.status, headers))]
        if body and answer.body:
            parts.append(self._http.send(h11.Data(data=answer.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        await self._answered(b"".join(part for part in parts if part))

    async def _answered(self, data: bytes | None) -> None:
        with trio.CancelScope() as patience:
            await self._send(data, patience)
        if patience.cancelled_caught:
            raise trio.TooSlowError

    async def _stream_lines(self, lines: Lines) -> None:
        """An answer in chunks, until `lines` ends it."""
        headers = [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked"), ("connection", "close")]
        # One scope for all pieces: setting one up is a tenth of what sending a line costs, and a thousand clients
        # get each line.
        with trio.CancelScope() as patience:

            async def send(piece: bytes) -> None:
                await self._send(self._http.send(h11.Data(data=piece)), patience)

            await self._send(self._http.send(_response(200, headers)), patience)
            await lines(send)
            await self._send(self._http.send(h11.EndOfMessage()), patience)
        if patience.cancelled_caught:
            raise trio.TooSlowError

    async def _send(self, data: bytes | None, patience: trio.CancelScope) -> None:
        """Each piece has its own deadline, which is that of the scope meanwhile."""
        for start in range(0, len(data or b""), SEND_BYTES):
            patience.deadline = trio.current_time() + self._limits.request_timeout
            await self._stream.send_all(memoryview(data or b"")[start : start + SEND_BYTES])
        patience.deadline = math.inf


def _response(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=http.HTTPStatus(status).phrase.encode())
