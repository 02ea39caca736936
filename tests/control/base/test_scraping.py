"""Who may ask by which name, and which of the two formats is meant."""

from __future__ import annotations

import trio
import trio.testing

from control.base import scraping
from control.base.exposition import OPENMETRICS, TEXT
from control.base.http import CLOSE, HttpRequest, HttpResponse
from control.base.scraping import ScrapeServer, content_type, host_refusal, wants_openmetrics

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def test_formats() -> None:
    assert wants_openmetrics(PROMETHEUS)
    assert wants_openmetrics("application/openmetrics-text")
    for other in ("", "*/*", "text/plain", "text/html,*/*;q=0.8", "application/openmetrics-text;q=0",
                  "application/openmetrics-text;version=2.0.0", "application/openmetrics-text;q=x",
                  "application/openmetrics-text;q=0.1, text/plain;q=0.9"):  # fmt: skip
        assert not wants_openmetrics(other), other
    asked = HttpRequest("GET", "/", b"", ((b"accept", PROMETHEUS.encode()),))
    assert content_type(asked) == OPENMETRICS
    assert content_type(HttpRequest("GET", "/", b"")) == TEXT


def test_hosts() -> None:
    for host in ("10.0.0.1", "10.0.0.1:9600", "[fe80::1]:9600", "::1", "localhost:1", "a.example", "A.EXAMPLE.:80"):
        assert host_refusal(host, {"a.example"}, "telemetry.hosts") is None, host
    for host in ("", "b.example", "a.example.evil", "1.2.3.4.evil", "[", "a.example:1:2"):
        why = host_refusal(host, {"a.example"}, "telemetry.hosts")
        assert why is not None, host
        assert why.endswith("allowed: an IP address, localhost, or a name in telemetry.hosts")


async def _told(server: ScrapeServer, request: bytes) -> bytes:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as client:
            await client.send_all(request)
            found = b"".join([piece async for piece in client])
        nursery.cancel_scope.cancel()
    return found


async def test_a_mistake_in_what_is_told_ends_with_that_answer() -> None:
    async def broken(asked: HttpRequest) -> HttpResponse:
        raise RuntimeError("a bug")

    server = ScrapeServer({"/x": broken}, ())
    assert (await _told(server, b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 500")
    assert (await _told(server, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_one_too_many_is_told_so_and_a_slow_one_is_let_go(
    monkeypatch: object, autojump_clock: trio.abc.Clock
) -> None:
    async def answer(asked: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"fine", headers=(CLOSE,))

    server = ScrapeServer({"/x": answer}, ())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        slow = [await trio.testing.open_stream_to_socket_listener(listeners[0]) for _ in range(scraping.MAX_CLIENTS)]
        while server._clients < len(slow):
            await trio.lowlevel.checkpoint()
        late = await trio.testing.open_stream_to_socket_listener(listeners[0])
        assert (await late.receive_some()).startswith(b"HTTP/1.1 503")
        for client in slow:
            assert await client.receive_some() == b""  # the time was up
        for client in (*slow, late):
            await client.aclose()
        nursery.cancel_scope.cancel()
