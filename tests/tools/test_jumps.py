"""Whom a jumping clock is found to leave behind, and whom not."""

from __future__ import annotations

import math
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.tools import jumps

ACCEPT = "print('at', s.getsockname()[1], flush=True); s.accept()[0].recv(1)"


@pytest.fixture(autouse=True)
def no_jump_past_others() -> None:
    """What every other test has; here it is what is tested."""


def found(wait: Callable[[], Awaitable[object]], clock: MockClock | None = None, *, seconds: float = 60) -> str:
    """What is said of a run in which that is waited for, or at most as long as the clock takes for so many seconds."""
    seen = jumps.Jumps()

    async def main() -> None:
        with trio.move_on_after(seconds):
            await wait()

    with pytest.MonkeyPatch.context() as patched:
        seen.install(patched)
        trio.run(main, clock=clock if clock is not None else MockClock(autojump_threshold=0))
    return "\n".join(seen.found)


def readable(fd: int) -> Callable[[], Awaitable[object]]:
    async def wait() -> None:
        await trio.lowlevel.wait_readable(fd)

    return wait


async def in_a_thread() -> None:
    await trio.to_thread.run_sync(lambda: None)


def test_a_worker_thread() -> None:
    said = found(in_a_thread)
    assert said.startswith("the clock of this test jumps while it waits for a worker thread (")
    assert "test_jumps.py:" in said
    assert said.endswith(jumps.INSTEAD)


def test_what_trio_does_in_threads(tmp_path: Path) -> None:
    assert "a worker thread" in found(lambda: trio.Path(tmp_path).exists())


def test_a_background_task_is_seen_too() -> None:
    async def wait() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_a_thread)

    assert "a worker thread" in found(wait)


@pytest.mark.parametrize("clock", [MockClock(), MockClock(rate=1), None], ids=["still", "as the real one", "real"])
def test_a_clock_that_does_not_jump_may_wait_for_anybody(clock: MockClock | None) -> None:
    if clock is None:
        trio.run(in_a_thread)
    else:
        assert found(in_a_thread, clock) == ""


def test_a_clock_that_runs() -> None:
    assert "a worker thread" in found(in_a_thread, MockClock(rate=100))


def test_in_no_thread(threadless: None) -> None:
    assert found(in_a_thread) == ""


def test_a_thread_that_the_test_began() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="mine")

    async def wait() -> None:
        thread.start()
        await trio.sleep(1)

    try:
        assert "the thread 'mine'" in found(wait)
    finally:
        over.set()
        thread.join()


def test_a_process() -> None:
    async def wait() -> None:
        await trio.run_process([sys.executable, "-c", ""])

    said = found(wait, seconds=math.inf)
    assert "the end of another process" in said


def test_a_pipe_of_another_process() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert "at the other end of a pipe" in found(readable(child.stdout.fileno()))


def test_a_pipe_of_this_process() -> None:
    ends = os.pipe()
    try:
        assert found(readable(ends[0])) == ""
    finally:
        for end in ends:
            os.close(end)


def test_a_unix_socket_of_another_process(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    serve = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen(); {ACCEPT}"
    with subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            assert f"process {child.pid} at the other end of a Unix socket" in found(readable(sock.fileno()))


def test_a_unix_socket_of_this_process(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as sock:
        assert found(readable(sock.fileno())) == ""
        listener.bind(path)
        listener.listen()
        assert found(readable(listener.fileno())) == ""
        sock.connect(path)
        assert found(readable(sock.fileno())) == ""
        accepted, _ = listener.accept()
        with accepted:
            assert found(readable(sock.fileno())) == ""
            assert found(readable(accepted.fileno())) == ""


def test_tcp_to_another_process() -> None:
    serve = f"import socket; s = socket.create_server(('127.0.0.1', 0)); {ACCEPT}"
    with subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        with socket.create_connection(("127.0.0.1", int(child.stdout.readline().split()[1]))) as sock:
            assert "at the other end of a TCP connection" in found(readable(sock.fileno()))
            with select.epoll() as epoll:
                epoll.register(sock.fileno(), select.EPOLLIN)
                assert "at the other end of a TCP connection" in found(readable(epoll.fileno()))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp_within_this_process(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        assert found(readable(listener.fileno())) == ""
        with socket.create_connection(listener.getsockname()[:2]) as sock:
            # It waits in the backlog.
            assert found(readable(sock.fileno())) == ""
            accepted, _ = listener.accept()
            with accepted:
                assert found(readable(sock.fileno())) == ""
                assert found(readable(accepted.fileno())) == ""
                with select.epoll() as epoll:
                    epoll.register(sock.fileno(), select.EPOLLIN)
                    assert found(readable(epoll.fileno())) == ""
            assert found(readable(sock.fileno())) == ""


def test_the_kernel() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        assert "the kernel (netlink)" in found(readable(sock.fileno()))
