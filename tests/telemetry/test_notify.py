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
