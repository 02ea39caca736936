from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from control.api import messages
from control.base.system.commanders import Commanders
from proxy.links.acceptgate import AcceptGate
from proxy.telemetry import admin
from proxy.telemetry.slices import SLICE
from tests.tools.namespaces import PID, USER, contained

Ask = Callable[[bytes], "trio.abc.ReceiveStream"]

STATUS = messages.Status(
    host="a", pid=1, version="0", uptime_s=1.5, security="none", sessions=0, streams=0, memory_used=0, memory_limit=1,
    streams_opened=0, streams_refused=0, handshakes_avoided=0, peers=[], upstreams=[], services=[],
)  # fmt: skip


STREAM = messages.StreamInfo(
    id="b/1/1", link="b/1", service="web", direction="outbound", peer="b", state="open", age_s=0, bytes_sent=0,
    bytes_received=0, credit=0, buffered=0,
)  # fmt: skip

PATHS = "/status, /links, /streams, /hosts, /services, /edges, /reload, /drain"


class View:
    """A proxy with nothing to tell; ``links`` fails as a bug would."""

    def status(self) -> messages.Status:
        return STATUS

    def links(self) -> list[messages.LinkInfo]:
        raise LookupError("a bug")

    def streams(self) -> Iterator[messages.StreamInfo]:
        yield from ()

    def hosts(self) -> list[messages.MeshHost]:
        return []

    def services(self) -> list[messages.ServiceRoute]:
        return []

    async def edges(self) -> messages.Edges:
        return messages.Edges(edges=[])


class Orders:
    """Does nothing, and says so."""

    async def reload(self) -> messages.ReloadResult:
        return messages.ReloadResult(outcome="applied", changes=["x: 1 → 2"])

    async def drain(self, seconds: float | None) -> AsyncGenerator[messages.DrainProgress, None]:
        for over in (False, True):
            left = -1.0 if seconds is None else seconds
            yield messages.DrainProgress(left_s=left, streams=0, cut=0, over=over, holders=[])


ORDERS = Orders()


async def ready() -> messages.HealthAnswer:
    return messages.HealthAnswer(ok=True, problems=[])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@asynccontextmanager
async def serving(path: Path, commanders: Commanders | None = Commanders()) -> AsyncIterator[None]:  # noqa: B008 - frozen
    """`commanders`: None: the socket for monitoring."""
    bound = socket.socket(socket.AF_UNIX)
    bound.setblocking(False)
    bound.bind(str(path))  # trio's own bind takes a thread to it, beside which no clock may jump.
    listening = trio.socket.from_stdlib_socket(bound)
    listening.listen()
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(listening)
        if commanders is None:
            gate, name = AcceptGate(), str(path)
            serve = partial(admin.serve_telemetry, [listener], View(), name, health={"/ready": ready}, gate=gate)
            await nursery.start(serve)
        else:
            await nursery.start(partial(admin.serve_admin, [listener], View(), ORDERS, commanders=commanders))
        yield
        nursery.cancel_scope.cancel()
    listening.close()


async def read_all(client: trio.SocketStream) -> bytes:
    with trio.fail_after(20):
        return b"".join([chunk async for chunk in client])


async def ask(path: Path, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to ``request``."""
    async with await trio.open_unix_socket(str(path)) as client:
        await client.send_all(request)
        return parsed(await read_all(client))


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def get(target: str, method: str = "GET", headers: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: admin\r\n{headers}\r\n".encode()


async def test_get(path: Path) -> None:
    async with serving(path):
        status, headers, body = await ask(path, get("/status?pretty=1"))
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert headers["content-length"] == str(len(body))
        assert headers["connection"] == "close"
        assert msgspec.json.decode(body, type=messages.Status) == STATUS
        assert (await ask(path, get("/streams")))[2] == b"[]"


async def test_many_streams_keep_nobody_from_their_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, seen = 0, set()

    def streams(self: View) -> Iterator[messages.StreamInfo]:
        for number in range(10 * SLICE):
            seen.add(turns)
            yield msgspec.structs.replace(STREAM, id=f"b/1/{number}")

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    monkeypatch.setattr(View, "streams", streams)
    async with serving(path), trio.open_nursery() as nursery:
        nursery.start_soon(others)
        _, _, body = await ask(path, get("/streams"))
        nursery.cancel_scope.cancel()
    assert [each.id for each in msgspec.json.decode(body, type=list[messages.StreamInfo])] == [
        f"b/1/{number}" for number in range(10 * SLICE)
    ]
    assert len(seen) >= 5


async def test_a_bug_in_the_middle_of_the_streams(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def streams(self: View) -> Iterator[messages.StreamInfo]:
        yield STREAM
        raise LookupError("a bug")

    monkeypatch.setattr(View, "streams", streams)
    with structlog.testing.capture_logs() as logs:
        async with serving(path):
            assert (await ask(path, get("/streams")))[0] == 500
    assert [entry["event"] for entry in logs] == ["admin request failed"]


async def test_orders(path: Path) -> None:
    async with serving(path):
        status, _, body = await ask(path, get("/reload", "POST", "Content-Length: 0\r\n"))
        assert (status, msgspec.json.decode(body)["changes"]) == (200, ["x: 1 → 2"])
        for query, seconds in (("", -1.0), ("?seconds=2.5", 2.5), ("?seconds=0", 0.0)):
            status, headers, body = await ask(path, get(f"/drain{query}", "POST"))
            assert (status, headers["content-type"]) == (200, "application/x-ndjson")
            lines = [msgspec.json.decode(line) for line in body.split(b"\r\n") if line.startswith(b"{")]
            assert [(line["left_s"], line["over"]) for line in lines] == [(seconds, False), (seconds, True)]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("?seconds=soon", "seconds 'soon' are not allowed; allowed: 0 to 86400"),
        ("?seconds=-1", "seconds '-1' are not allowed; allowed: 0 to 86400"),
        ("?seconds=nan", "seconds 'nan' are not allowed; allowed: 0 to 86400"),
        ("?seconds=", "query 'seconds=' is not allowed; allowed: seconds=NUMBER"),
        ("?now", "query 'now' is not allowed; allowed: seconds=NUMBER"),
        ("?seconds=1&x=2", "query 'seconds=1&x=2' is not allowed; allowed: seconds=NUMBER"),
    ],
)
async def test_orders_that_are_none(path: Path, query: str, error: str) -> None:
    async with serving(path):
        status, _, body = await ask(path, get(f"/drain{query}", "POST"))
        assert (status, msgspec.json.decode(body)) == (400, {"error": error})


async def test_an_order_is_not_asked_for(path: Path) -> None:
    async with serving(path):
        status, headers, body = await ask(path, get("/reload"))
        assert (status, headers["allow"]) == (405, "post")
        assert msgspec.json.decode(body) == {"error": "method 'GET' is not allowed for /reload; allowed: POST"}


async def test_head(path: Path) -> None:
    async with serving(path):
        status, headers, body = await ask(path, get("/status", "HEAD"))
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
        assert (await ask(path, get("/x", "HEAD")))[::2] == (404, b"")


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (get("/"), 404, f"no such path '/'; there are {PATHS}"),
        (get("/status/"), 404, f"no such path '/status/'; there are {PATHS}"),
        (get("/" + "x" * 100), 404, f"no such path '/{'x' * 59}'; there are {PATHS}"),
        (
            get("/status", "POST", "Content-Length: 3\r\n") + b"abc",
            405,
            "method 'POST' is not allowed for /status; allowed: GET, HEAD",
        ),
        (get("/status", "GET", "X: " + "x" * 20_000 + "\r\n"), 431, "not a valid HTTP/1.1 request"),
        (b"\x16\x03\x01\x02\x00\x01\x00" * 10 + b"\r\n\r\n", 400, "not a valid HTTP/1.1 request"),
        (b"GET /status HTTP/1.1\r\n\r\n", 400, "not a valid HTTP/1.1 request"),  # No Host.
        (get("/status", "GET", "Transfer-Encoding: gzip\r\n"), 501, "not a valid HTTP/1.1 request"),
        (b"\x00" * 9000, 400, "not a valid HTTP/1.1 request"),
    ],
    ids=["root", "slash", "long", "post", "headers", "tls", "no-host", "encoding", "zeros"],
)
async def test_refused(path: Path, request_: bytes, status: int, error: str) -> None:
    async with serving(path):
        found, _, body = await ask(path, request_)
        assert found == status
        assert json.loads(body) == {"error": error}
        assert (await ask(path, get("/status")))[0] == 200


async def test_only_405_says_what_is_allowed(path: Path) -> None:
    async with serving(path):
        assert (await ask(path, get("/status", "PUT")))[1]["allow"] == "get, head"
        assert "allow" not in (await ask(path, get("/")))[1]


@pytest.mark.failure(18)
async def test_a_bug_in_a_view_ends_neither_the_client_nor_the_server(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(path):
            status, _, body = await ask(path, get("/links"))
            assert status == 500
            assert json.loads(body) == {"error": "the proxy could not answer; its log says why"}
            assert (await ask(path, get("/status")))[0] == 200
    assert [(entry["event"], entry["path"], entry["log_level"]) for entry in logs] == [
        ("admin request failed", "'/links'", "error")
    ]


@pytest.mark.failure(18)
async def test_a_bug_elsewhere_ends_with_its_client(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(path):
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(admin, "_refusal", lambda text: 1 / 0)
            async with await trio.open_unix_socket(str(path)) as client:
                await client.send_all(get("/"))
                assert await read_all(client) == b""
        assert [entry["event"] for entry in logs] == ["admin client failed"]
        assert (await ask(path, get("/status")))[0] == 200


async def test_a_request_in_single_bytes(path: Path) -> None:
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        for byte in get("/streams"):
            await client.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert parsed(await read_all(client))[2] == b"[]"


@pytest.mark.parametrize("sent", [b"", b"GET /sta", get("/status")[:-1]])
async def test_who_leaves_without_a_request_gets_nothing(path: Path, sent: bytes) -> None:
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(sent)
        await client.send_eof()
        answer = await read_all(client)
        assert answer == b"" or parsed(answer)[0] == 400
        assert (await ask(path, get("/status")))[0] == 200


async def test_who_aborts_is_forgotten(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(path):
            for _ in range(admin.MAX_CLIENTS + 1):
                client = await trio.open_unix_socket(str(path))
                await client.send_all(get("/status"))
                await trio.aclose_forcefully(client)
            await trio.testing.wait_all_tasks_blocked()
            assert (await ask(path, get("/status")))[0] == 200
    assert logs == []


async def test_a_slow_client_is_cut_off(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(b"GET /status HTTP/1.1\r\n")
        before = trio.current_time()
        assert await client.receive_some() == b""
        assert trio.current_time() - before == pytest.approx(admin.CLIENT_TIMEOUT)


async def test_a_client_that_does_not_read_is_cut_off(
    path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(View, "streams", lambda self: ["x" * 1000] * 10_000)
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(get("/streams"))
        await trio.sleep(admin.CLIENT_TIMEOUT + 1)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


async def test_who_does_not_read_how_a_drain_goes_is_cut_off_without_a_word(
    path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``hostlane drain`` that was stopped with Ctrl-Z is no bug of the proxy."""
    ended = trio.Event()

    async def drain(self: Orders, seconds: float | None) -> AsyncGenerator[messages.DrainProgress, None]:
        try:
            while True:
                holder = messages.StreamHolder(
                    service="x" * 10_000, direction="inbound", peer=None, uid=None, pid=None, streams=1
                )
                yield messages.DrainProgress(left_s=1.0, streams=0, cut=0, over=False, holders=[holder])
        finally:
            ended.set()

    monkeypatch.setattr(Orders, "drain", drain)
    with structlog.testing.capture_logs() as logs:
        async with serving(path), await trio.open_unix_socket(str(path)) as client:
            await client.send_all(get("/drain", "POST"))
            await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
    assert logs == []


async def test_who_talks_on_after_the_answer_is_cut_off(path: Path) -> None:
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(get("/streams"))
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(100):
                await client.send_all(b"x" * admin.LINGER_BYTES)


async def test_who_stays_after_the_answer_is_cut_off(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(path), await trio.open_unix_socket(str(path)) as client:
        await client.send_all(get("/streams"))
        await trio.sleep(admin.LINGER_TIMEOUT + 1)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


async def test_too_many_clients(path: Path) -> None:
    async with serving(path), trio.open_nursery() as nursery:
        waiting = [await trio.open_unix_socket(str(path)) for _ in range(admin.MAX_CLIENTS)]
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            status, _, body = await ask(path, b"")
            assert status == 503
            assert json.loads(body) == {"error": f"more than {admin.MAX_CLIENTS} clients at a time"}
        # Those who were first are served, and make room.
        for client in waiting:
            nursery.start_soon(client.send_all, get("/streams"))
            assert parsed(await read_all(client))[0] == 200
            await client.aclose()
        assert (await ask(path, get("/status")))[0] == 200


class Told(View):
    """Without the bug."""

    def links(self) -> list[messages.LinkInfo]:
        return []


PIECES = [
    b"GET ", b"HEAD ", b"POST ", b"/status", b"/links?x", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n",
]  # fmt: skip


@pytest.mark.failure(18)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=20), st.booleans(), st.booleans())
def test_any_bytes_get_one_answer_or_none_and_never_a_bug(said: list[bytes], leaves: bool, monitor: bool) -> None:
    orders, commanders = (None, None) if monitor else (ORDERS, Commanders())

    async def converse() -> bytes:
        client, server = (trio.SocketStream(end) for end in trio.socket.socketpair())
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(admin._Server(Told(), {}, orders, commanders).serve, server)
            for piece in said:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await client.send_all(piece)
            if leaves:
                await client.send_eof()
            return await read_all(client)

    with structlog.testing.capture_logs() as logs:
        answer = trio.run(converse, clock=trio.testing.MockClock(autojump_threshold=0))
    assert logs == []
    if answer:
        status, headers, body = parsed(answer)
        assert status in (200, 400, 403, 404, 405, 431, 501)
        assert (status == 403) <= monitor
        if "transfer-encoding" in headers:
            return
        assert int(headers["content-length"]) == len(body) or b"HEAD" in b"".join(said)


CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(sys.argv[2].encode())
    while piece := sock.recv(65536):
        sys.stdout.buffer.write(piece)
"""


async def ask_contained(path: Path, request: bytes, *kinds: tuple[str, ...]) -> tuple[int, dict[str, str], bytes]:
    """As `ask`, from a container that has the socket's directory mounted read-only."""
    argv = contained(path.parent, [sys.executable, "-c", CLIENT, str(path), request.decode()], *kinds)
    with trio.fail_after(60):
        return parsed((await trio.run_process(argv, capture_stdout=True)).stdout)


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("kinds", [(PID,), (USER,), (PID, USER)], ids=["pid", "user", "both"])
async def test_a_container_neither_commands_nor_asks(
    path: Path, kinds: tuple[tuple[str, ...], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float | None] = []

    async def drain(self: Orders, seconds: float | None) -> AsyncGenerator[messages.DrainProgress, None]:
        told.append(seconds)
        yield messages.DrainProgress(left_s=0, streams=0, cut=0, over=True, holders=[])

    monkeypatch.setattr(Orders, "drain", drain)
    with structlog.testing.capture_logs() as logs:
        async with serving(path):
            for request in (get("/drain?seconds=0", "POST"), get("/reload", "POST"), get("/status"), get("/x")):
                status, headers, body = await ask_contained(path, request, *kinds)
                assert (status, headers["connection"]) == (403, "close")
                assert "namespace, such as a container's; allowed: " in json.loads(body)["error"]
            assert told == []
            # Nothing but a mount of its own, as a service of systemd has.
            assert (await ask_contained(path, get("/drain?seconds=0", "POST")))[0] == 200
            assert told == [0.0]
    assert {(entry["event"], entry["log_level"]) for entry in logs} == {("admin client refused", "warning")}


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_a_container_commands_where_the_configuration_says_so(path: Path) -> None:
    async with serving(path, Commanders(anywhere=True)):
        assert (await ask_contained(path, get("/drain", "POST"), PID))[0] == 200
        assert (await ask_contained(path, get("/status"), PID, USER))[0] == 200


@pytest.mark.failure("21")
async def test_who_may_not_command_is_in_nobodys_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may = False
    monkeypatch.setattr(Commanders, "refusal", lambda self, sock: None if may else "no")
    with structlog.testing.capture_logs() as logs:
        async with serving(path):
            waiting = [await trio.open_unix_socket(str(path)) for _ in range(admin.MAX_CLIENTS)]
            await trio.testing.wait_all_tasks_blocked()
            assert (await ask(path, b""))[0] == 503
            may = True
            assert (await ask(path, get("/status")))[0] == 200
            for client in waiting:
                await trio.aclose_forcefully(client)
    assert len(logs) == admin.LINES_AT_ONCE


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("kinds", [(PID,), (USER,), (PID, USER)], ids=["pid", "user", "both"])
async def test_a_container_asks_at_the_socket_for_monitoring(path: Path, kinds: tuple[tuple[str, ...], ...]) -> None:
    """It reads what there is to read, and nothing that it says does anything."""
    async with serving(path, None):
        assert json.loads((await ask_contained(path, get("/status"), *kinds))[2])["host"] == "a"
        for request in (get("/drain?seconds=0", "POST"), get("/reload", "POST"), get("/status", "POST")):
            status, _, body = await ask_contained(path, request, *kinds)
            assert (status, json.loads(body)) == (403, {"error": admin.ONLY_TELLS})


@pytest.mark.failure("21")
async def test_what_the_socket_for_monitoring_tells(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(Orders, "reload", lambda self: called.append("reload"))
    monkeypatch.setattr(Orders, "drain", lambda self, seconds: called.append("drain"))
    monkeypatch.setattr(View, "links", list)
    paths = ["/status", "/links", "/streams", "/hosts", "/services", "/edges", "/ready"]
    async with serving(path, None):
        for known in paths:
            assert [(await ask(path, get(known, method)))[0] for method in ("GET", "HEAD")] == [200, 200]
            for method in ("PUT", "DELETE", "PATCH", "post", "OPTIONS"):
                assert (await ask(path, get(known, method)))[0] == 405
        for order in ("/reload", "/drain"):
            status, _, body = await ask(path, get(order))
            assert (status, json.loads(body)["error"]) == (404, f"no such path '{order}'; there are {', '.join(paths)}")
            assert (await ask(path, get(order, "POST")))[0] == 403
    assert called == []


@pytest.mark.failure("21")
async def test_who_asks_for_ever_waits(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """And costs no more than so many answers a second."""
    answered = 0

    async def insist() -> None:
        nonlocal answered
        while True:
            with suppress(trio.BrokenResourceError):
                async with await trio.open_unix_socket(str(path)) as client:
                    await client.send_all(get("/status"))
                    answered += (await read_all(client)).startswith(b"HTTP/1.1 200")

    async with serving(path, None):
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(admin.MAX_CLIENTS):
                    nursery.start_soon(insist)
        assert 0 < answered <= admin.ASKED_AT_ONCE + 10 * admin.ASKED_PER_SECOND
        await trio.sleep(admin.ASKED_AT_ONCE / admin.ASKED_PER_SECOND)
        assert (await ask(path, get("/status")))[0] == 200


@pytest.mark.failure("21")
async def test_who_monitors_is_in_nobodys_way(path: Path) -> None:
    """Each socket has its own places."""
    other = path.with_name("status.sock")
    async with serving(path), serving(other, None):
        waiting = [await trio.open_unix_socket(str(other)) for _ in range(admin.MAX_CLIENTS)]
        await trio.testing.wait_all_tasks_blocked()
        assert (await ask(other, b""))[0] == 503
        assert (await ask(path, get("/status")))[0] == 200
        for client in waiting:
            await trio.aclose_forcefully(client)
