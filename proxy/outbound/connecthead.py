"""What a caller asks for at the CONNECT socket, and what it is answered: the head of one request, by h11 (sans-IO).

RFC 9110, section 9.3.6: the target is ``host:port``, a 2xx answer has no content, and what follows the blank line at
its end is the connection itself. The host is the name of a service here, and the port says nothing.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

import h11

from control.base.reading.units import quote
from proxy.errors import CloseReason

MAX_HEAD = 8192
"""Bytes of request line and headers together, as nginx allows by default; above it (to within a read) it is 431."""
REASON = "hostlane-close-reason"
"""The header of a refusal that says the close reason."""
STATUS = {
    CloseReason.NO_SUCH_SERVICE: 404,
    CloseReason.NOT_ALLOWED: 403,
    CloseReason.CONNECT_TIMEOUT: 504,
    CloseReason.PEER_TIMEOUT: 504,
    CloseReason.RESUME_TIMEOUT: 504,
}
"""What a caller is answered whose call no host takes; 503 for every other reason."""
_TARGET = re.compile(r"([^:\s]{1,253}):([0-9]{1,5})", re.ASCII)
_BODY = (b"content-length", b"transfer-encoding")


class ConnectRequest(NamedTuple):
    """A head that is whole. `rest`: what the caller has sent behind it."""

    service: str
    rest: bytes


class BadHead(Exception):
    """The request is none that this socket takes.

    Attributes:
        status: of the answer, and what is wrong in words.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ConnectHead:
    """One request, from its first byte to its answer."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def receive(self, data: bytes) -> ConnectRequest | None:
        """Take what the caller has sent, at least a byte; None: the head is not whole yet. Raises BadHead."""
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return None
            assert isinstance(event, h11.Request)
            service = _service(event)
            self._http.next_event()  # its end
        except h11.RemoteProtocolError as error:
            hint = error.error_status_hint
            raise BadHead(hint if hint >= 400 else 400, "not a valid HTTP/1.1 request") from None
        return ConnectRequest(service, self._http.trailing_data[0])

    def established(self) -> bytes:
        """The answer to a call that has been delivered."""
        return self._answer(200, [], "Connection established")

    def refused(self, service: str, reason: CloseReason) -> bytes:
        """The answer to a call that has not been."""
        text = f"{service}: {reason.label}" if service else reason.label
        return self.wrong(STATUS.get(reason, 503), text, (REASON, reason.label))

    def wrong(self, status: int, text: str, *headers: tuple[str, str]) -> bytes:
        """The answer to a request, whole or not, that leads nowhere; empty if it has been answered."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        body = text.encode("ascii", "backslashreplace") + b"\n"
        described = [("content-type", "text/plain"), ("content-length", str(len(body))), ("connection", "close")]
        head = self._answer(status, [*described, *headers], HTTPStatus(status).phrase)
        return head + (self._http.send(h11.Data(data=body)) or b"")

    def _answer(self, status: int, headers: list[tuple[str, str]], phrase: str) -> bytes:
        response = h11.Response(status_code=status, headers=headers, reason=phrase.encode())
        return self._http.send(response) or b""


def _service(request: h11.Request) -> str:
    """The service that a request names. Raises BadHead."""
    target = request.target.decode("latin-1")
    if request.method != b"CONNECT":
        method = quote(request.method.decode("ascii")[:20])
        raise BadHead(405, f"method {method}; allowed: CONNECT SERVICE:PORT (curl: --proxytunnel)")
    if any(name in _BODY for name, _ in request.headers):
        raise BadHead(400, "content-length or transfer-encoding with CONNECT; allowed: neither")
    found = _TARGET.fullmatch(target)
    if found is None:
        raise BadHead(400, f"target {quote(target[:60])}; allowed: SERVICE:PORT")
    return found[1].lower()
