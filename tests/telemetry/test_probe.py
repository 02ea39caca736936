"""The image's health check, run as the image runs it, against a socket that answers in every way."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "proxy" / "telemetry" / "probe.py"
pytestmark = pytest.mark.failure("26")


def probe(*words: str) -> tuple[int, str]:
    argv = [sys.executable, "-I", "-S", str(PROBE), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@contextmanager
def answering(path: Path, *pieces: bytes) -> Iterator[list[bytes]]:
    """A server that answers one client in these pieces, and keeps what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as client:
                asked.append(client.recv(1000))
                for piece in pieces:
                    client.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        yield asked
        thread.join()


@pytest.mark.parametrize("question", ["ready", "alive", "mesh", "v1/health"])
def test_yes(tmp_path: Path, question: str) -> None:
    path = tmp_path / "s"
    with answering(path, b"HTTP/1.1 2", b'00 OK\r\n\r\n{"ok":true}') as asked:
        assert probe(question, str(path)) == (0, "")
    assert asked[0].startswith(b"GET /%s HTTP/1.1\r\n" % question.encode())
    assert b"\r\nConnection: close\r\n" in asked[0]  # a control server waits for another question otherwise


def test_no_and_why(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path, b"HTTP/1.1 503 No\r\nx: y\r\n\r\n", b'{"ok":false,"problems":["it is ', b'about to stop"]}'):
        assert probe("ready", str(path)) == (1, '{"ok":false,"problems":["it is about to stop"]}\n')


def test_an_end_without_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path):
        assert probe("ready", str(path))[0] == 1


def test_nobody_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert probe("ready", str(path)) == (1, f"{path}: No such file or directory\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert probe("alive", str(path)) == (1, f"{path}: Connection refused\n")


def test_one_that_hangs_takes_connections_and_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert probe("ready", str(path)) == (1, f"{path}: no answer in 4 s\n")


def test_it_imports_nothing_that_is_not_built_in() -> None:
    argv = [sys.executable, "-I", "-S", "-X", "importtime", str(PROBE), "ready", "/nowhere"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.splitlines()[-1].split("|")[-1].strip()
    assert last == "_socket"


def test_the_image_runs_it() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert '"-I", "-S", "/opt/hostlane/probe"' in text
    assert "cp proxy/telemetry/probe.py /opt/hostlane/probe" in text
