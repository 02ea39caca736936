"""What systemd is told."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.telemetry.notify import VARIABLE, notify, reloading, stopping


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        monkeypatch.setenv(VARIABLE, str(tmp_path / "notify"))
        yield sock


def test_a_socket_with_a_path(told: socket.socket) -> None:
    notify("READY=1")
    assert told.recv(100) == b"READY=1"


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses an abstract name
        monkeypatch.setenv(VARIABLE, "@" + sock.getsockname()[1:].decode())
        notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_reloading_says_when() -> None:
    before = time.monotonic_ns() // 1000
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading())
    assert match is not None
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


def test_stopping_asks_for_time() -> None:
    assert stopping(10.5) == "STOPPING=1\nEXTEND_TIMEOUT_USEC=15500000"


@pytest.mark.parametrize("value", ["", "relative", "vsock:2:1234"])
def test_nothing_without_a_socket(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with capture_logs() as logs:
        notify("READY=1")
    assert logs == []


def test_a_socket_that_is_not_there_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "missing"))
    with capture_logs() as logs:
        notify("READY=1")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("cannot tell systemd", "warning")]


@pytest.mark.failure(24)
def test_descriptors_go_with_it(told: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with open(tmp_path / "file") as file:
        assert notify("FDSTORE=1\nFDNAME=x", file.fileno())
    said, [descriptor], _, _ = socket.recv_fds(told, 100, 5)
    assert said == b"FDSTORE=1\nFDNAME=x"
    with open(descriptor) as file:
        assert file.read() == "content"


def test_whether_it_was_said(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs():
        for _ in range(10_000):
            if not notify("READY=1"):
                break
        else:
            raise AssertionError("nobody reads")
    monkeypatch.delenv(VARIABLE)
    assert not notify("READY=1")
