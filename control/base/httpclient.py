"""What a request of httpx that is given up, by a deadline around it or the end of whoever asked, would leave to the
garbage collector, which warns of it in whatever runs by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

__all__ = ["RequestBody", "closing_given_up"]


def closing_given_up() -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    """The ``trace`` extension of one request, for a client that connects by TCP: it closes the socket of a TLS
    handshake that is given up. httpcore closes it where the handshake fails, but leaves it open where it is cancelled.
    """
    connected: Any = None

    async def trace(event: str, info: dict[str, Any]) -> None:
        nonlocal connected
        if event == "connection.connect_tcp.complete":
            connected = info["return_value"]
        elif event == "connection.start_tls.failed" and connected is not None:
            await connected.aclose()

    return trace


class RequestBody(httpx.AsyncByteStream):
    """The body of a request, to be put into ``request.stream``. httpx's own is an async generator, which stays
    unfinished when the request breaks or is cancelled while it is sent.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = self._data
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        data, self._left = self._left, b""
        return data
