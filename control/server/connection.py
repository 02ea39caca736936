"""HTTP as the control server speaks it: how much its clients can take, and what it says to those it refuses unheard.
The loop is `control.base.http`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from trio.abc import Stream

from control.api.mesh import ControlErrorBody
from control.base.http import HttpConnection, HttpLimits, HttpRequest, HttpResponse, ResponseLines
from control.server.config import ControlLimits

__all__ = ["Connection"]

MAX_HEADER_BYTES = 16 << 10
"""Request line and headers together, twice what nginx allows by default."""
READ_BYTES = 16 << 10
LINGER, LINGER_BYTES = 1.0, 1 << 20
"""Seconds, and bytes, that a refused client may go on sending."""


class Connection(HttpConnection):
    """One client's connection.

    Args:
        respond: raises nothing but trio.Cancelled, and trio.BrokenResourceError if the client has left meanwhile.
        may_ask, stopping: as of `HttpConnection`.
    """

    def __init__(
        self,
        stream: Stream,
        limits: ControlLimits,
        respond: Callable[[HttpRequest], Awaitable[HttpResponse | ResponseLines]],
        may_ask: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        bounds = HttpLimits(
            header_bytes=MAX_HEADER_BYTES,
            read_bytes=READ_BYTES,
            body=limits.body,
            idle=limits.idle_timeout,
            request=limits.request_timeout,
            send=limits.request_timeout,
            linger=LINGER,
            linger_bytes=LINGER_BYTES,
        )

        def refusal(status: int, what: str) -> bytes:
            code, text = {
                408: ("slow", f"the request took more than {limits.request_timeout:g} s to arrive"),
                413: ("too_large", f"the body is too large; allowed: {limits.body} bytes"),
                429: ("too_many", "too many requests; ask again in a second"),
            }.get(status, ("http", f"not a valid HTTP/1.1 request: {what}"))
            return msgspec.json.encode(ControlErrorBody(error=text, code=code))

        super().__init__(stream, bounds, respond, refusal, may_ask=may_ask, stopping=stopping)
