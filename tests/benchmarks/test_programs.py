"""The load client against the server, over a Unix socket and over TCP: it works, and it notices a wrong byte."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import loadrun
from benchmarks.build import Programs
from benchmarks.errors import BenchError
from benchmarks.loadrun import Figures, Phase, Target
from tests.tools.sockets import PATIENCE, free_port

SHORT = 0.2


@contextlib.contextmanager
def server(programs: Programs, address: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [str(programs.echo), *options, "--seconds", "60", "--listen", address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def measure(programs: Programs, address: str, *phases: Phase, size: int = 64) -> list[Figures]:
    return loadrun.run(str(programs.load), Target((), address), phases, size=size, ready_within=30)


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "unix":
        return f"unix:{tmp_path / 'echo.sock'}"
    return f"tcp:127.0.0.1:{free_port()}"


@pytest.mark.parametrize("size", [16, 64, 1021, 65536])
def test_persistent(programs: Programs, address: str, size: int) -> None:
    with server(programs, address):
        (figures,) = measure(programs, address, Phase(SHORT, "ping=16"), size=size)
    assert figures.round_trips > 0
    assert figures.errors == 0
    assert 0 < figures.p50_us <= figures.p99_us <= figures.max_us * 1.01


def test_a_connection_for_each_request(programs: Programs, address: str) -> None:
    with server(programs, address):
        (figures,) = measure(programs, address, Phase(SHORT, "req=4"))
    assert figures.round_trips > 0
    assert figures.errors == 0


def test_streams_both_ways_beside_messages(programs: Programs, address: str) -> None:
    with server(programs, address):
        (figures,) = measure(programs, address, Phase(SHORT, "ping=2,bulk=1,source=1"))
    assert min(figures.round_trips, figures.bulk_bytes, figures.source_bytes) > 0


def test_stalled_readers_stop_their_own_stream_only(programs: Programs, address: str) -> None:
    phases = [
        Phase(SHORT, "ping=2,bulk=1", warm=True),
        Phase(SHORT, "ping=2,stallw=1,stallr=1"),
        Phase(SHORT, "ping=2"),
    ]
    with server(programs, address):
        stalled, after = measure(programs, address, *phases)
    assert min(stalled.round_trips, after.round_trips) > 0
    assert stalled.source_bytes < 8 << 20


def test_idle_connections_and_the_memory_of_a_process(programs: Programs, address: str) -> None:
    with server(programs, address) as process:
        target = Target((), address, (process.pid,))
        (figures,) = loadrun.run(str(programs.load), target, [Phase(0.01, "idle=200")])
    assert figures.rss_kb[0] > 0
    assert figures.errors == 0


@pytest.mark.parametrize("what", ["ping=1", "req=1", "source=1", "ping=16,source=1"])
def test_one_wrong_bit_is_found(programs: Programs, address: str, what: str) -> None:
    with server(programs, address, "--corrupt", "50"), pytest.raises(BenchError, match=r"WRONG BYTES: .* byte \d+"):
        measure(programs, address, Phase(60, what))


def test_the_sink_finds_a_wrong_byte(programs: Programs, address: str) -> None:
    """Spoken by hand: head, some bytes that are not the stream's, and the report that says so."""
    head = (0xB17E << 48 | 2 << 40 | 7).to_bytes(8, "little") + bytes(8)
    kind, _, where = address.partition(":")
    with server(programs, address), socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as client:
        client.connect(where if kind == "unix" else ("127.0.0.1", int(where.rpartition(":")[2])))
        client.sendall(head + b"not the pattern")
        assert client.recv(8) == b"\xff" * 8


def test_a_server_that_never_answers(programs: Programs, tmp_path: Path) -> None:
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(BenchError, match=r"0 of 2 connections had a reply after 0\.2 s"):
            loadrun.run(str(programs.load), Target((), f"unix:{path}"), [Phase(1, "ping=2")], ready_within=0.2)


def test_no_server(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="connect: No such file or directory"):
        loadrun.run(str(programs.load), Target((), f"unix:{tmp_path}/none"), [Phase(1, "ping=1")], ready_within=0.1)


def wait_for(path: Path) -> None:
    """A socket file that another process makes."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.005)


@contextlib.contextmanager
def floor(programs: Programs, folder: Path, service: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A pair of them, in front of the service; what it is called through is ``folder/entry.sock``."""
    link = ["--link", f"tcp:127.0.0.1:{free_port()}"]
    ways = (["--deliver", service], ["--entry", f"unix:{folder / 'entry.sock'}"])
    processes = [subprocess.Popen([programs.floor, *way, *link], stderr=subprocess.PIPE) for way in ways]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("what", ["ping=64", "req=8", "ping=3,req=3"])
def test_the_floor_carries_messages(programs: Programs, tmp_path: Path, what: str) -> None:
    with server(programs, service := f"unix:{tmp_path / 'echo.sock'}"), floor(programs, tmp_path, service) as pair:
        entry = tmp_path / "entry.sock"
        wait_for(entry)
        (figures,) = measure(programs, f"unix:{entry}", Phase(SHORT, what), size=1021)
        assert figures.round_trips > 0
        assert figures.errors == 0
        assert [process.poll() for process in pair] == [None, None]


def test_the_floor_ends_with_its_link(programs: Programs, tmp_path: Path) -> None:
    with floor(programs, tmp_path, "unix:/none") as (far, near):
        wait_for(tmp_path / "entry.sock")
        far.kill()
        assert near.wait(PATIENCE) == 0


def test_the_floor_says_that_it_carries_no_bulk(programs: Programs, tmp_path: Path) -> None:
    with server(programs, service := f"unix:{tmp_path / 'echo.sock'}"), floor(programs, tmp_path, service) as (_, near):
        wait_for(tmp_path / "entry.sock")
        with contextlib.suppress(BenchError):
            measure(programs, f"unix:{tmp_path / 'entry.sock'}", Phase(5, "stallr=1"))
        assert near.wait(PATIENCE) == 1
        assert near.stderr is not None
        assert near.stderr.read() == b"floor: a local socket is full: it carries messages only\n"


@pytest.mark.parametrize("program", ["load", "echo", "floor"])
@pytest.mark.parametrize("argv", [[], ["--nonsense", "1"], ["--listen", "ftp:x"], ["--to", "tcp:1.2.3:4"]])
def test_usage(programs: Programs, program: str, argv: list[str]) -> None:
    done = subprocess.run([getattr(programs, program), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "allowed" in done.stderr or "usage" in done.stderr
