"""HTTP without TLS or a server: a connection in memory, and clients of every kind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from control.base.http import HttpRequest, HttpResponse, ResponseLines
from control.server.config import ControlLimits
from control.server.connection import Connection

LIMITS = ControlLimits(body=16 << 10, request_timeout=2.0, idle_timeout=5.0)
GET = b"GET /x HTTP/1.1\r\nHost: c\r\n\r\n"


async def echo(asked: HttpRequest) -> HttpResponse | ResponseLines:
    if asked.target == "/lines":

        async def lines(send: Callable[[bytes], Awaitable[None]]) -> None:
            for number in range(3):
                await send(b"%d\n" % number)

        return lines
    return HttpResponse(200, f"{asked.method} {asked.target} {len(asked.body)}".encode(), "text/plain")


@asynccontextmanager
async def serving(
    may_ask: Callable[[], bool] = lambda: True, stopping: Callable[[], bool] = lambda: False
) -> AsyncIterator[tuple[trio.testing.MemoryStream, Connection]]:  # type: ignore[name-defined]
    client, server = trio.testing.memory_stream_pair()
    connection = Connection(server, LIMITS, echo, may_ask, stopping)

    async def serve() -> None:
        try:
            await connection.converse()
        except trio.BrokenResourceError:
            pass
        finally:
            await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield client, connection
        nursery.cancel_scope.cancel()


async def all_of(client: trio.abc.ReceiveStream) -> bytes:
    with trio.fail_after(60):
        return b"".join([bytes(chunk) async for chunk in client])


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["code"]


async def test_one_after_another_and_in_a_pipeline(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        await client.send_all(GET + b"POST /y HTTP/1.1\r\nHost: c\r\nContent-Length: 3\r\n\r\nabc" + GET)
        answers = await all_of(client)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert b"GET /x 0" in answers
    assert b"POST /y 3" in answers


async def test_lines_without_end(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        await client.send_all(b"GET /lines HTTP/1.1\r\nHost: c\r\n\r\n")
        answer = await all_of(client)
    assert answer.endswith(b"2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n")


async def test_head_has_no_body(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        await client.send_all(b"HEAD /x HTTP/1.1\r\nHost: c\r\n\r\n" + GET)
        answers = await all_of(client)
    assert answers.count(b"content-length: ") == 2
    assert b"HEAD /x" not in answers


async def test_a_client_that_asks_first_whether_it_may_send(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        await client.send_all(b"PUT /x HTTP/1.1\r\nHost: c\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"abc")
        assert b"PUT /x 3" in await all_of(client)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", 400, "http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400, "http"),
        (b"GET /x HTTP/1.1\r\nHost: c\r\nX: " + b"x" * 40_000, 431, "http"),
        (b"GET /x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "http"),
        (b"PUT /x HTTP/1.1\r\nHost: c\r\nContent-Length: 99999999\r\n\r\n", 413, "too_large"),
        (b"PUT /x HTTP/1.1\r\nHost: c\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, "http"),
        (
            b"PUT /x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n"
            b"4000\r\n" + b"x" * 16384 + b"\r\n",
            413,
            "too_large",
        ),
        (b"PUT /x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "http"),
        (b"GET /x HTTP/1.1\r\nHost: c", 408, "slow"),
        (b"PUT /x HTTP/1.1\r\nHost: c\r\nContent-Length: 9\r\n\r\nabc", 408, "slow"),
    ],
    ids=["no-host", "tls", "headers", "encoding", "length", "lengths", "chunks", "chunk", "half-head", "half-body"],
)
async def test_refused(autojump_clock: trio.testing.MockClock, sent: bytes, status: int, code: str) -> None:
    async with serving() as (client, _):
        await client.send_all(sent)
        assert refusal(await all_of(client)) == (status, code)


async def test_a_byte_at_a_time_has_one_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        began = trio.current_time()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            for byte in b"GET /x HTTP/1.1\r\nHost: c\r\nX: " + b"x" * 1000:
                await client.send_all(bytes([byte]))
                await trio.sleep(0.5)
        assert trio.current_time() - began < LIMITS.request_timeout + 3


async def test_an_idle_client_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, _):
        assert await all_of(client) == b""
    async with serving() as (client, _):
        await client.send_all(GET)
        assert (await all_of(client)).count(b"HTTP/1.1") == 1


async def test_too_many_requests(autojump_clock: trio.testing.MockClock) -> None:
    left = iter([True])
    async with serving(may_ask=lambda: next(left, False)) as (client, _):
        await client.send_all(GET + GET)
        answers = await all_of(client)
    assert answers.startswith(b"HTTP/1.1 200")
    assert refusal(answers[answers.index(b"HTTP/1.1 429") :]) == (429, "too_many")


async def test_a_stop_ends_idle_connections_and_says_so_in_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (client, connection):
        await trio.testing.wait_all_tasks_blocked()
        connection.end_if_idle()
        assert await all_of(client) == b""
    stop = iter([False])
    async with serving(stopping=lambda: next(stop, True)) as (client, _):
        await client.send_all(GET)
        assert b"connection: close" in await all_of(client)


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8))
def test_junk_ends_with_the_client(pieces: list[bytes]) -> None:
    async def junk() -> None:
        async with serving() as (client, _):
            try:
                for piece in pieces:
                    await client.send_all(piece)
                await client.send_eof()
            except trio.BrokenResourceError:
                pass
            answer = await all_of(client)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

    trio.run(junk, clock=trio.testing.MockClock(autojump_threshold=0))
