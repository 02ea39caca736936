"""Heads of CONNECT requests, whole, byte by byte and with what follows them; and the answers."""

from __future__ import annotations

import h11
import pytest

from proxy.errors import CloseReason
from proxy.outbound.connecthead import MAX_HEAD, REASON, BadHead, ConnectHead, ConnectRequest

HEAD = b"CONNECT redis:6379 HTTP/1.1\r\nHost: redis:6379\r\nUser-Agent: curl/8.14\r\n\r\n"


def answer_to(head: ConnectHead, sent: bytes) -> ConnectRequest:
    found = head.receive(sent)
    assert found is not None
    return found


def wrong(sent: bytes) -> tuple[int, str]:
    with pytest.raises(BadHead) as caught:
        ConnectHead().receive(sent)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("rest", [b"", b"PING\r\n", HEAD, bytes(3000)])
def test_a_head_and_what_follows_it(rest: bytes) -> None:
    assert answer_to(ConnectHead(), HEAD + rest) == ("redis", rest)


def test_a_head_byte_by_byte() -> None:
    head = ConnectHead()
    for number in range(len(HEAD) - 1):
        assert head.receive(HEAD[number : number + 1]) is None
    assert answer_to(head, HEAD[-1:]) == ("redis", b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT redis:6379 HTTP/1.0\r\n\r\n",  # Python's, up to version 3.11
        b"CONNECT REDIS:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT redis:6379 HTTP/1.1\r\nHost: redis\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
    ],
)
def test_heads_of_other_clients(sent: bytes) -> None:
    assert answer_to(ConnectHead(), sent).service == "redis"


def test_other_methods_are_told_what_is_wanted() -> None:
    status, text = wrong(b"GET http://redis:6379/ HTTP/1.1\r\nHost: redis\r\n\r\n")
    assert (status, text) == (405, 'method "GET"; allowed: CONNECT SERVICE:PORT (curl: --proxytunnel)')


@pytest.mark.parametrize("target", [b"redis", b":6379", b"redis:", b"redis:port", b"http://redis:6379", b"[::1]:80"])
def test_other_targets(target: bytes) -> None:
    status, text = wrong(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 400
    assert text.endswith("; allowed: SERVICE:PORT")


@pytest.mark.parametrize("header", [b"Content-Length: 0", b"Transfer-Encoding: chunked"])
def test_content(header: bytes) -> None:
    assert wrong(b"CONNECT redis:1 HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\nPING")[0] == 400


@pytest.mark.parametrize(
    "sent",
    [
        b"PING\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"CONNECT redis:1 HTTP/1.1\r\n\r\n",  # HTTP/1.1 without Host
        b"CONNECT redis:1 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http(sent: bytes) -> None:
    assert wrong(sent + b"\r\n\r\n") == (400, "not a valid HTTP/1.1 request")


def test_a_head_without_end() -> None:
    head = ConnectHead()
    with pytest.raises(BadHead) as caught:
        for _ in range(MAX_HEAD):
            head.receive(b"CONNECT redis:1 HTTP/1.1\r\nHost: x\r\nA: " if _ == 0 else b"aaaa")
    assert caught.value.status == 431


def read(answer: bytes) -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="CONNECT", target="redis:6379", headers=[("host", "redis")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = client.next_event() if response.status_code >= 300 else None
    return response, bytes(body.data) if isinstance(body, h11.Data) else client.trailing_data[0]


def test_established() -> None:
    head = ConnectHead()
    head.receive(HEAD)
    response, rest = read(head.established() + b"+PONG\r\n")
    assert (response.status_code, response.headers, rest) == (200, [], b"+PONG\r\n")


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (CloseReason.NO_SUCH_SERVICE, 404),
        (CloseReason.NOT_ALLOWED, 403),
        (CloseReason.CONNECT_TIMEOUT, 504),
        (CloseReason.CONNECT_FAILED, 503),
        (CloseReason.PEER_UNREACHABLE, 503),
        (CloseReason.OVERLOADED, 503),
    ],
)
def test_refused(reason: CloseReason, status: int) -> None:
    head = ConnectHead()
    head.receive(HEAD)
    response, body = read(head.refused("redis", reason))
    assert response.status_code == status
    assert dict(response.headers)[REASON.encode()] == reason.label.encode()
    assert body == f"redis: {reason.label}\n".encode()


def test_a_request_that_is_not_whole_is_answered_once() -> None:
    head = ConnectHead()
    head.receive(HEAD[:20])
    assert head.wrong(408, "no whole request in time").startswith(b"HTTP/1.1 408 ")
    assert head.wrong(408, "again") == b""
