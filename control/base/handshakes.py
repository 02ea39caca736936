"""A TLS handshake that is given up closes its socket.

httpcore closes it where the handshake fails, but leaves it open, to the garbage collector, where it is cancelled: by a
deadline around the request, or the end of whoever asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["closing_given_up"]


def closing_given_up() -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    """The ``trace`` extension of one request of httpx, for a client that connects by TCP."""
    connected: Any = None

    async def trace(event: str, info: dict[str, Any]) -> None:
        nonlocal connected
        if event == "connection.connect_tcp.complete":
            connected = info["return_value"]
        elif event == "connection.start_tls.failed" and connected is not None:
            await connected.aclose()

    return trace
