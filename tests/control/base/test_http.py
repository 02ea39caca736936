"""The HTTP of both servers, the control server and the admin socket: one loop, with the arguments of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

import msgspec
import pytest
import trio
import trio.testing

from control.base.http import CLOSE, SEND_BYTES, HttpConnection, HttpLimits, HttpRequest, HttpResponse, ResponseLines
from control.server import connection as control
from control.server.config import ControlLimits
from proxy.telemetry import admin

Respond = Callable[[HttpRequest], Awaitable[HttpResponse | ResponseLines]]
Make = Callable[["Recorder", Respond], HttpConnection]

LIMITS = HttpLimits(
    header_bytes=1000, read_bytes=100, body=50, idle=5.0, request=2.0, send=3.0, linger=1.0, linger_bytes=400
)
GET = b"GET /x HTTP/1.1\r\nHost: c\r\n\r\n"


class Recorder(trio.abc.HalfCloseableStream):
    """The server's end of a connection; what is done to it is written down.

    Attributes:
        done: in order, with the bytes that were received.
        pieces: bytes handed over to be sent, for each time.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.done: list[str] = []
        self.pieces: list[int] = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.done.append(f"receive {len(data)}")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append("send")
        self.pieces.append(len(data))
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        self.done.append("eof")
        await self._stream.send_eof()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def echo(asked: HttpRequest) -> HttpResponse | ResponseLines:
    if asked.target != "/lines":
        return HttpResponse(200, f"{asked.method} {asked.target} {len(asked.body)}".encode(), "text/plain")

    async def lines(send: Callable[[bytes], Awaitable[None]]) -> None:
        for number in range(2):
            await send(b"%d\n" % number)

    return lines


async def echo_once(asked: HttpRequest) -> HttpResponse | ResponseLines:
    """As the admin socket answers: each time for the last time."""
    answer = await echo(asked)
    return replace(answer, headers=(CLOSE,)) if isinstance(answer, HttpResponse) else answer


def of_control_server(stream: Recorder, respond: Respond = echo) -> HttpConnection:
    return control.Connection(stream, ControlLimits(body=50), respond, lambda: True, lambda: False)


def of_admin_socket(stream: Recorder, respond: Respond = echo_once) -> HttpConnection:
    return HttpConnection(stream, admin.LIMITS, respond, admin._malformed, send_eof=stream.send_eof)


def made(**changes: object) -> Make:
    """A connection with limits and arguments of this test's own."""
    limits = {name: changes.pop(name) for name in list(changes) if hasattr(LIMITS, name)}

    def make(stream: Recorder, respond: Respond = echo) -> HttpConnection:
        refusal = changes.get("refusal", lambda status, what: b"%d" % status)
        more = {name: value for name, value in changes.items() if name != "refusal"}
        return HttpConnection(stream, replace(LIMITS, **limits), respond, refusal, **more)  # type: ignore[arg-type]

    return make


async def talk(make: Callable[[Recorder], HttpConnection], *sent: bytes, eof: bool = False) -> tuple[bytes, list[str]]:
    """What a client that says all this is told until the connection ends, and what was done at the server's end."""
    client, server = trio.testing.memory_stream_pair()
    stream = Recorder(server)
    for piece in sent:
        await client.send_all(piece)
    if eof:
        await client.send_eof()
    with trio.fail_after(1000):
        await make(stream).converse()
    await server.aclose()
    return b"".join([bytes(chunk) async for chunk in client]), stream.done


def plain(status: int, body: str, *more: str, kind: str = "text/plain") -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        *more,
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


def refused(status: int, body: str) -> bytes:
    return plain(status, body, "connection: close", kind="application/json")


HEAD_X = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n"
LINES = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n0\n\r\n2\r\n1\n\r\n0\r\n\r\n"
)
LAST = "connection: close"
LATE = refused(408, '{"error":"the request took more than 10 s to arrive","code":"slow"}')
LARGE = refused(413, '{"error":"the body is too large; allowed: 50 bytes","code":"too_large"}')


@pytest.mark.parametrize(
    ("sent", "by_control_server", "by_admin_socket"),
    [
        (GET, plain(200, "GET /x 0"), plain(200, "GET /x 0", LAST)),
        (GET + GET, plain(200, "GET /x 0") * 2, plain(200, "GET /x 0", LAST)),
        (b"HEAD /x HTTP/1.1\r\nHost: c\r\n\r\n", HEAD_X + b"\r\n", HEAD_X + b"connection: close\r\n\r\n"),
        (
            b"PUT /x HTTP/1.1\r\nHost: c\r\nContent-Length: 3\r\n\r\nabc",
            plain(200, "PUT /x 3"),
            plain(200, "PUT /x 0", LAST),
        ),
        (
            b"PUT /x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            plain(200, "PUT /x 3"),
            plain(200, "PUT /x 0", LAST),
        ),
        (
            b"PUT /x HTTP/1.1\r\nHost: c\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 100 \r\n\r\n" + plain(200, "PUT /x 3"),
            plain(200, "PUT /x 0", LAST),
        ),
        (b"PUT /x HTTP/1.1\r\nHost: c\r\nContent-Length: 51\r\n\r\n", LARGE, plain(200, "PUT /x 0", LAST)),
        (
            b"GET /x HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n",
            plain(200, "GET /x 0", "Connection: close"),
            plain(200, "GET /x 0", "Connection: close"),
        ),
        (
            b"GET /x HTTP/1.0\r\n\r\n",
            plain(200, "GET /x 0", "Connection: close"),
            plain(200, "GET /x 0", "Connection: close"),
        ),
        (b"GET /lines HTTP/1.1\r\nHost: c\r\n\r\n", LINES, LINES),
        (b"", b"", b""),
    ],
    ids=["get", "pipeline", "head", "body", "chunks", "expect", "large", "close", "http-1.0", "lines", "nothing"],
)
async def test_what_each_server_answers(
    autojump_clock: trio.testing.MockClock, sent: bytes, by_control_server: bytes, by_admin_socket: bytes
) -> None:
    assert (await talk(of_control_server, sent, eof=True))[0] == by_control_server
    assert (await talk(of_admin_socket, sent, eof=True))[0] == by_admin_socket


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NO\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: c\r\nX: " + b"x" * 40_000, 431),
        (b"GET /x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
    ids=["no-http", "no-host", "headers", "encoding"],
)
async def test_how_each_refuses_what_is_no_http(
    autojump_clock: trio.testing.MockClock, sent: bytes, status: int
) -> None:
    text = "not a valid HTTP/1.1 request"
    assert (await talk(of_admin_socket, sent, eof=True))[0] == refused(status, f'{{"error":"{text}"}}')
    answer, _ = await talk(of_control_server, sent, eof=True)
    body = answer.partition(b"\r\n\r\n")[2].decode()
    assert answer == refused(status, body)
    found = msgspec.json.decode(body)
    assert found["code"] == "http"
    assert found["error"].startswith(f"{text}: ")


async def test_half_a_request_is_refused_late_or_never(autojump_clock: trio.testing.MockClock) -> None:
    assert (await talk(of_control_server, GET[:-2]))[0] == LATE
    with trio.move_on_after(500) as patience:
        # The admin socket's own deadline is for the client as a whole.
        await talk(of_admin_socket, GET[:-2])
    assert patience.cancelled_caught


async def test_how_each_closes(autojump_clock: trio.testing.MockClock) -> None:
    """After a refusal the control server takes what the client still sends. The admin socket does so after each answer,
    none of which follows a whole request, and ends its own direction first: its clients read to the end."""
    close = b"GET /x HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n"
    assert (await talk(of_control_server, close, b"more"))[1] == [f"receive {len(close) + 4}", "send"]
    refused = b"NO\r\n\r\n" + b"x" * (20_000 - 6)
    done = (await talk(of_control_server, refused, eof=True))[1]
    assert done == ["receive 16384", "send", f"receive {20_000 - 16384}", "receive 0"]
    for sent in (refused, GET + b"x" * (20_000 - len(GET))):
        done = (await talk(of_admin_socket, sent, eof=True))[1]
        assert done == [
            "receive 4096",
            "send",
            "eof",
            *["receive 4096"] * 3,
            f"receive {20_000 - 4 * 4096}",
            "receive 0",
        ]


@pytest.mark.parametrize("sent", [GET, b"NO\r\n\r\n", b"GET /lines HTTP/1.1\r\nHost: c\r\n\r\n"])
async def test_so_much_and_no_more_is_taken_after_the_last_answer(
    autojump_clock: trio.testing.MockClock, sent: bytes
) -> None:
    _, done = await talk(made(body=None), sent, b"x" * 10_000)
    assert done[-1] == "receive 100"
    assert sum(1 for each in done[1:] if each == "receive 100") == LIMITS.linger_bytes // LIMITS.read_bytes


async def test_headers_are_bounded_to_within_a_read(autojump_clock: trio.testing.MockClock) -> None:
    def request(length: int) -> bytes:
        start = b"GET /x HTTP/1.1\r\nHost: c\r\nX: "
        return start + b"x" * (length - len(start) - 4) + b"\r\n\r\n"

    assert (await talk(made(), request(1000)))[0].startswith(b"HTTP/1.1 200 ")
    assert (await talk(made(), request(1101)))[0].startswith(b"HTTP/1.1 431 ")


async def test_a_body_is_bounded_however_it_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    start = b"PUT /x HTTP/1.1\r\nHost: c\r\n"
    for size, status in ((50, b"200"), (51, b"413")):
        whole = start + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
        chunks = start + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size + b"0\r\n\r\n"
        for sent in (whole, chunks):
            assert (await talk(made(), sent))[0].split()[1] == status


async def test_what_is_wrong_with_a_request_is_told_to_the_refusal(autojump_clock: trio.testing.MockClock) -> None:
    told = []

    def refusal(status: int, what: str) -> bytes:
        told.append((status, what))
        return b"no"

    await talk(made(refusal=refusal), b"NO\r\n\r\n")
    await talk(made(refusal=refusal), GET[:-2])
    await talk(made(refusal=refusal, may_ask=lambda: False), GET)
    assert [status for status, _ in told] == [400, 408, 429]
    assert [what.partition(":")[0] for _, what in told] == ["illegal request line", "", ""]


async def test_an_answer_before_anything_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    stream = Recorder(server)
    await of_admin_socket(stream).answer(HttpResponse(503, b"full", "text/plain", (CLOSE,)))
    await server.aclose()
    assert b"".join([bytes(chunk) async for chunk in client]) == plain(503, "full", LAST)
    assert stream.done == ["send"]


async def test_a_long_answer_goes_out_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    body = bytes(range(256)) * 600

    async def long(asked: HttpRequest) -> HttpResponse:
        return HttpResponse(200, body)

    streams = []

    def make(stream: Recorder) -> HttpConnection:
        streams.append(stream)
        return made()(stream, long)

    answer, _ = await talk(make, GET, eof=True)
    assert answer.endswith(b"\r\n\r\n" + body)
    assert streams[0].pieces == [SEND_BYTES] * (len(answer) // SEND_BYTES) + [len(answer) % SEND_BYTES]


@pytest.mark.parametrize("target", [b"/x", b"/lines"])
async def test_who_takes_no_answer(autojump_clock: trio.testing.MockClock, target: bytes) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, GET.replace(b"/x", target))
        with pytest.raises(trio.TooSlowError):
            await made()(Recorder(server), echo).converse()
    assert trio.current_time() == pytest.approx(LIMITS.send)


async def test_who_takes_each_line_slowly_gets_them_all(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    taken = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made()(Recorder(server), echo).converse)
        await client.send_all(b"GET /lines HTTP/1.1\r\nHost: c\r\n\r\n")
        while not taken.endswith(b"0\r\n\r\n"):
            await trio.sleep(LIMITS.send - 1)
            taken += await client.receive_some(1000)
    assert taken == LINES


async def test_an_end_of_waiting(autojump_clock: trio.testing.MockClock) -> None:
    assert await talk(made()) == (b"", [])
    assert trio.current_time() == pytest.approx(LIMITS.idle)
    assert await talk(made(stopping=lambda: True), GET) == (b"", [])
    _, server = trio.testing.memory_stream_pair()
    connection = made(idle=1e9)(Recorder(server), echo)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.converse)
        await trio.testing.wait_all_tasks_blocked()
        connection.end_if_idle()


async def test_what_goes_wrong_comes_out(autojump_clock: trio.testing.MockClock) -> None:
    async def bug(asked: HttpRequest) -> HttpResponse:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        await talk(lambda stream: made()(stream, bug), GET)
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(GET)
    await client.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await made()(Recorder(server), echo).converse()
