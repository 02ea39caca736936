"""Who is waited for while a clock jumps: threads and other processes, whom a virtual second gives no time at all.

A ``MockClock`` with an ``autojump_threshold`` goes to the next deadline as soon as no task can run. A worker thread
that waits for a core, or a child process that starts, is no task: twenty virtual seconds are over before it has run, so
that each deadline of such a test is a lottery, which a busy machine loses. ``rate`` above 1 does the same more slowly.

Seen, whoever began the wait (product, test or library), each time the run goes to wait for I/O:

- ``trio.to_thread.run_sync``, and what trio builds upon it (``trio.Path``, ``trio.open_file``, binding a Unix socket,
  looking up names), and threads that the test began by itself;
- ``trio.lowlevel.wait_readable`` and ``wait_writable``, and with them trio's sockets, streams and processes, on a
  descriptor that somebody else serves:

  - a pipe or FIFO whose other end is not open in this process; a pidfd (``Process.wait``);
  - a timerfd, inotify and their like, and netlink: their time is the kernel's;
  - a connected Unix socket whose SO_PEERCRED names another process;
  - a TCP socket whose other end is no socket of this process and waits in no backlog of its listeners: another
    process, or a dead address, where the kernel's own timers decide; a connected one of another network namespace;
  - an epoll descriptor, such as a pump's, that watches one of these at that moment.

Not seen:

- a socketpair or pipe that is open here and in a child as well;
- a listener to which another process shall connect; once it has, the connection is seen;
- datagram sockets, signals, a dial in another network namespace that is not through yet;
- a thread from before the test (of a module's fixture), and ``trio.from_thread`` calls that only an event waits for.

TCP between two sockets of this process is allowed: on loopback the bytes are there when the call that sent them has
returned, unless the machine is so busy that the kernel puts it off. A call that blocks the whole run is no wait: no
clock jumps meanwhile.
"""

from __future__ import annotations

import math
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock

INSTEAD = (
    "take the real clock and wait for the event itself; or a MockClock without autojump_threshold, which the test "
    "moves by jump() once the others have answered; or, where the thread is beside the point, the fixture threadless"
)

WAITS = {
    trio.to_thread.run_sync.__code__: "a worker thread",
    trio.lowlevel.wait_readable.__code__: "fd",
    trio.lowlevel.wait_writable.__code__: "fd",
}
LIBRARIES = str(Path(trio.__file__).parent.parent)


class Jumps(trio.abc.Instrument):
    """What a run of a jumping clock waited for that no jump can hurry: ``found``, one sentence each."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}
        self._before = set(threading.enumerate())

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, whoever starts a run: pytest-trio, or a test by ``trio.run(..., clock=MockClock(...))``."""
        start_clock = MockClock.start_clock

        def watched(clock: MockClock) -> None:
            trio.lowlevel.add_instrument(self)
            start_clock(clock)

        monkeypatch.setattr(MockClock, "start_clock", watched)

    def before_io_wait(self, timeout: float) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        if clock.autojump_threshold == math.inf and clock.rate <= 1:
            return
        for task in _tasks():
            self._look_at(task)
        for thread in set(threading.enumerate()) - self._before:
            if not thread.name.startswith("Trio thread") and thread is not threading.main_thread():
                self._note(f"the thread {thread.name!r}", "which the test began")

    def _look_at(self, task: trio.lowlevel.Task) -> None:
        where = task.name
        for frame, line in task.iter_await_frames():
            if not frame.f_code.co_filename.startswith(LIBRARIES):
                where = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
            if (wait := WAITS.get(frame.f_code)) is None:
                continue
            if wait != "fd":
                self._note(wait, where)
            elif (server := self._server_of(frame.f_locals["fd"])) is not None:
                self._note(server, where)

    def _note(self, whom: str, where: str) -> None:
        self.found[f"the clock of this test jumps while it waits for {whom} ({where}): {INSTEAD}"] = None

    def _server_of(self, waited: int | trio.socket.SocketType) -> str | None:
        """Who else serves that descriptor; None if it is this process, as far as one can see."""
        fd = waited if isinstance(waited, int) else waited.fileno()
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            return None
        if name == "anon_inode:[eventpoll]":
            return next(filter(None, map(self._server_of, _watched_by(fd))), None)
        return _server_of(fd, name)


def _tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        yield task
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)


def _watched_by(epoll: int) -> list[int]:
    found = re.findall(r"^tfd:\s*(\d+)", Path(f"/proc/self/fdinfo/{epoll}").read_text(), re.MULTILINE)
    return [int(fd) for fd in found]


def _server_of(fd: int, name: str) -> str | None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return None if _other_end_is_open(fd, name) else "another process at the other end of a pipe"
    if name == "anon_inode:[pidfd]":
        return "the end of another process"
    if name.startswith("anon_inode:") and name != "anon_inode:[eventfd]":
        return f"the kernel ({name})"
    if not stat.S_ISSOCK(mode):
        return None
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_NETLINK:
            return "the kernel (netlink)"
        if sock.type != socket.SOCK_STREAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        if sock.family == socket.AF_UNIX:
            return _server_of_unix(sock)
        return _server_of_tcp(sock, name)


def _other_end_is_open(fd: int, name: str) -> bool:
    """Whether this process holds the end of the pipe at which the waited-for thing would be done."""
    mine = _access(fd)
    if mine == os.O_RDWR:
        return True
    return any(each != fd and _access(each) != mine for each, found in _open_descriptors() if found == name)


def _access(fd: int) -> int:
    (flags,) = re.findall(r"^flags:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
    return int(flags, 8) & os.O_ACCMODE


def _open_descriptors() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc/self/fd"):
        try:
            yield int(entry), os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the one that listed them
            continue


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _server_of_unix(sock: socket.socket) -> str | None:
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    # 0: there is no other end yet.
    return None if pid in (0, os.getpid()) else f"process {pid} at the other end of a Unix socket"


class _Tcp(NamedTuple):
    """A line of /proc/net/tcp."""

    local: str
    remote: str
    state: str
    inode: str


ESTABLISHED, SYN_SENT, SYN_RECV, LISTEN = "01", "02", "03", "0A"


def _tcp() -> Iterator[_Tcp]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            yield _Tcp(words[1], words[2], words[3], f"socket:[{words[9]}]")


def _server_of_tcp(sock: socket.socket, name: str) -> str | None:
    table = list(_tcp())
    mine = next((each for each in table if each.inode == name), None)
    if mine is None:
        # Never connected, reset, or not of this namespace.
        return "another network namespace" if _is_connected(sock) else None
    if mine.state not in (ESTABLISHED, SYN_SENT, SYN_RECV):
        # One of the two sides has closed. Who has read to the end waits for nobody.
        return None
    ours = {found for _, found in _open_descriptors()}
    if any(each.local == mine.remote and each.remote == mine.local and each.inode in ours for each in table):
        return None
    port = mine.remote.rpartition(":")[2]
    if any(each.state == LISTEN and each.local.rpartition(":")[2] == port and each.inode in ours for each in table):
        return None
    return "another process, or nobody, at the other end of a TCP connection"


async def run_at_once(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """What stands for ``trio.to_thread.run_sync`` where time jumps: the same call, in no thread."""
    await trio.lowlevel.checkpoint()
    return function(*args)
