"""Redis: its load program's output, its protocol, and a real server where there is one."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo import redis
from proxy.demo.loopback import Loopback
from proxy.demo.processes import DemoError
from proxy.demo.redis import BenchmarkRun, RedisClient
from proxy.demo.setup import free_ports

HEADER = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"'
)


def test_parse_csv() -> None:
    text = f'{HEADER}\n"SET","12345.68","0.322","0.104","0.311","0.463","0.591","1.127"\n'
    assert redis.parse_csv(text) == BenchmarkRun(12345.68, 0.311, 0.591)
    assert redis.parse_csv("WARNING: Could not fetch server CONFIG\n" + text) == BenchmarkRun(12345.68, 0.311, 0.591)


NO_RESULTS = ["", HEADER, f"{HEADER}\n", f'{HEADER}\n"SET","1.0"\n', '"SET","1234.5"\n', f"{HEADER}\n,,,,,,"]


@pytest.mark.parametrize("text", NO_RESULTS)
def test_parse_csv_without_a_result(text: str) -> None:
    with pytest.raises(DemoError, match="no result") as caught:
        redis.parse_csv(text)
    assert "\n" not in str(caught.value)


def test_load_command() -> None:
    argv = redis.load_command(["-s", "/s"], persistent=False, requests=10, clients=2)
    assert " ".join(argv) == "redis-benchmark -s /s -n 10 -c 2 -k 0 -t set -d 64 --precision 3 --csv"
    assert "-k 1" in " ".join(redis.load_command(["-h", "h"], persistent=True, requests=10, clients=2))


def test_missing_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert redis.missing() == "redis-server is not installed (Debian: apt-get install redis-server)"


@contextlib.contextmanager
def answering(path: Path, reply: bytes) -> Iterator[list[bytes]]:
    """A server that takes one connection, sends ``reply`` after the first bytes, and closes."""
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        thread.join(30)


@pytest.mark.parametrize(
    ("reply", "result"),
    [(b"+PONG\r\n", b"PONG"), (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"), (b"$0\r\n\r\n", b""), (b"$-1\r\n", b"")],
)
def test_call(tmp_path: Path, reply: bytes, result: bytes) -> None:
    with answering(tmp_path / "s", reply) as received, RedisClient(tmp_path / "s") as client:
        assert client.call(b"GET", b"k\r\n") == result
    assert received == [b"*2\r\n$3\r\nGET\r\n$3\r\nk\r\n\r\n"]


def test_error_reply(tmp_path: Path) -> None:
    with answering(tmp_path / "s", b"-ERR unknown\r\n"), RedisClient(tmp_path / "s") as client:
        with pytest.raises(DemoError, match="ERR unknown"):
            client.call(b"NONSENSE")


@pytest.mark.parametrize("reply", [b"", b"$5\r\nabc", b"+PON"])
def test_truncated_reply_is_an_error(tmp_path: Path, reply: bytes) -> None:
    with answering(tmp_path / "s", reply), RedisClient(tmp_path / "s") as client:
        with pytest.raises(ConnectionError, match="ended"):
            client.call(b"GET", b"k")


def test_connecting_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RedisClient(tmp_path / "none")


@pytest.mark.redis
def test_a_real_server(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    value = os.urandom(100_000)
    with Loopback() as machine:
        server = redis.serve(machine.b, "127.0.0.1", port, tmp_path / "r.sock")
        redis.wait_until_it_answers(tmp_path / "r.sock", [server])
        with RedisClient(tmp_path / "r.sock") as client:
            assert client.call(b"SET", b"key", value) == b"OK"
            assert client.call(b"GET", b"key") == value
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.log"], "it left files behind"


@pytest.mark.redis
def test_waiting_for_a_server_that_dies(tmp_path: Path) -> None:
    with Loopback() as machine, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = redis.serve(machine.b, "127.0.0.1", taken.getsockname()[1], tmp_path / "r.sock")
        with pytest.raises(DemoError, match="redis-server on host-b ended"):
            redis.wait_until_it_answers(tmp_path / "r.sock", [server])


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "READY_S", 0.05)
    with pytest.raises(DemoError, match="Redis did not answer"):
        redis.wait_until_it_answers(tmp_path / "none", [])
