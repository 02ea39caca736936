"""What systemd is told."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from control.base.system import notify as notifying
from control.base.system.notify import MOST, VARIABLE, Notices, notify, reloading, stopping


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


@pytest.mark.failure("24")
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


def fill(told: socket.socket) -> int:
    """systemd reads nothing: how many words it has then."""
    with capture_logs():
        for number in range(10_000):
            if not notify("WATCHDOG=1"):
                return number
    raise AssertionError("it takes all")


def heard(told: socket.socket) -> list[bytes]:
    """All that waits to be read, without the watchdog's words."""
    told.setblocking(False)
    words = []
    try:
        while True:
            words.append(told.recv(100))
    except BlockingIOError:
        return [word for word in words if word != b"WATCHDOG=1"]


@pytest.mark.failure("26")
@pytest.mark.parametrize("words", [["MAINPID=17"], ["RELOADING=1", "READY=1"], ["READY=1", "MAINPID=1", "STOPPING=1"]])
async def test_what_is_said_once_waits_for_a_socket_with_room(told: socket.socket, words: list[str]) -> None:
    notices = Notices()
    fill(told)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notices.run)
            for word in words:
                notices.tell(word)
            await trio.sleep(3 * notifying.PAUSE)
            assert heard(told) == []
            with trio.fail_after(20):
                await notices.finish()
            assert heard(told) == [word.encode() for word in words]
            notices.tell("STATUS=late")
            assert heard(told) == [b"STATUS=late"], "at once"
            nursery.cancel_scope.cancel()
    assert {entry["event"] for entry in logs} == {"cannot tell systemd"}


@pytest.mark.failure("26")
async def test_nothing_overtakes_what_waits(told: socket.socket) -> None:
    notices = Notices()
    fill(told)
    notices.tell("RELOADING=1")
    assert heard(told) == []
    notices.tell("READY=1")
    assert heard(told) == [], "though there is room"
    await notices.finish()
    assert heard(told) == [b"RELOADING=1", b"READY=1"]


@pytest.mark.failure("26")
async def test_what_waits_is_bounded_and_so_is_the_end(
    told: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    notices, before = Notices(), trio.current_time()
    fill(told)
    with capture_logs() as logs:
        for number in range(MOST + 2):
            notices.tell(f"STATUS={number}")
        await notices.finish()
        assert trio.current_time() - before == pytest.approx(notifying.LAST_WORDS)
        words = heard(told)
        while len(words) < MOST:  # as many as the socket has room for at a time
            await notices.finish()
            more = heard(told)
            assert more
            words += more
    assert [entry["state"] for entry in logs if entry["event"] == "systemd was not told"] == ["STATUS=0", "STATUS=1"]
    assert words == [b"STATUS=%d" % number for number in range(2, MOST + 2)]


@pytest.mark.parametrize("value", ["", "/nowhere/at/all"])
async def test_nothing_waits_for_a_manager_that_is_not_there(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    notices = Notices()
    with capture_logs():
        notices.tell("READY=1")
    with trio.fail_after(1):
        await notices.finish()
