"""The rules of control/base/system/unixsock.py between real processes: races, kill -9, restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from control.base.system.peercred import credentials_of
from control.base.system.unixsock import bind_unix
from proxy.errors import StartError
from tests.tools.sockets import dead_socket, names, owner_of

pytestmark = pytest.mark.failure(15)

BINDER = Path(__file__).with_name("binder.py")


KILLED_AFTER = """
import fcntl, os, signal, socket, sys
from control.base.system.unixsock import bind_unix

def dying(step):
    def die(*arguments, **options):
        step(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return die

for module in (fcntl, os, socket.socket):
    if hasattr(module, "CALL"):
        setattr(module, "CALL", dying(getattr(module, "CALL")))
bind_unix(sys.argv[1])
"""


class Binder:
    """binder.py in a process of its own."""

    def __init__(self, path: Path) -> None:
        argv = [sys.executable, str(BINDER), str(path)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, command: str, at: float = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {at}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def do(self, command: str) -> str:
        self.send(command)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


SOON = 0.002
"""Seconds from giving a command to its start: enough for every process to read it and to spin."""


def test_kill_and_restart(directory: Path) -> None:
    path = directory / "s"
    with Binder(path) as first, Binder(path) as second:
        assert first.do("bind") == "bound"
        assert owner_of(path) == first.process.pid
        assert second.do("bind").startswith(f"cannot listen on unix:{path}: process {first.process.pid} already")
        first.kill()
        assert names(directory) == [".s.lock", "s"]
        with pytest.raises(ConnectionRefusedError):
            owner_of(path)
        assert second.do("bind") == "bound"
        assert owner_of(path) == second.process.pid
        assert second.do("close") == "closed"
    assert names(directory) == []


@pytest.mark.parametrize("call", ["flock", "bind", "chmod", "listen", "link", "unlink", "rename"])
def test_killed_in_the_middle(directory: Path, call: str) -> None:
    """Right after each step, as kill -9 would: the next start succeeds and leaves nothing over."""
    path = directory / "s"
    script = KILLED_AFTER.replace("CALL", call)
    if call == "rename":
        dead_socket(path)
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert ".s.lock" in names(directory)
    with bind_unix(str(path)):
        assert owner_of(path) == os.getpid()
        assert names(directory) == [".s.lock", "s"]
    assert names(directory) == []


@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
def test_of_processes_that_start_at_once_exactly_one_wins(directory: Path, stale: bool) -> None:
    path = directory / "s"
    with ExitStack() as stack:
        binders = [stack.enter_context(Binder(path)) for _ in range(3)]
        for _ in range(100):
            if stale:
                dead_socket(path)
            at = time.monotonic() + SOON
            for binder in binders:
                binder.send("bind", at)
            answers = [binder.answer() for binder in binders]
            assert answers.count("bound") == 1, answers
            winner = binders[answers.index("bound")]
            assert owner_of(path) == winner.process.pid
            assert winner.do("close") == "closed"
            assert names(directory) == []


def test_processes_that_start_while_another_stops(directory: Path) -> None:
    """At most one of them gets the path, and whoever got it keeps it whatever the leaving one still removes."""
    path = directory / "s"
    with ExitStack() as stack:
        binders = [stack.enter_context(Binder(path)) for _ in range(3)]
        holder = binders[0]
        assert holder.do("bind") == "bound"
        for _ in range(150):
            at = time.monotonic() + SOON
            others = [binder for binder in binders if binder is not holder]
            holder.send("close", at)
            for binder in others:
                binder.send("bind", at)
            assert holder.answer() == "closed"
            winners = [binder for binder in others if binder.answer() == "bound"]
            assert len(winners) <= 1
            if not winners:
                assert names(directory) == []
                assert holder.do("bind") == "bound"
            holder = winners[0] if winners else holder
            assert owner_of(path) == holder.process.pid
            assert names(directory) == [".s.lock", "s"]


def test_a_process_killed_while_others_start(directory: Path) -> None:
    path = directory / "s"
    with Binder(path) as second, Binder(path) as third:
        for _ in range(5):
            with Binder(path) as first:
                assert first.do("bind") == "bound"
                at = time.monotonic() + SOON
                second.send("bind", at)
                third.send("bind", at)
                first.kill()
                winners = [binder for binder in (second, third) if binder.answer() == "bound"]
            assert len(winners) <= 1
            for winner in winners:
                assert owner_of(path) == winner.process.pid
                assert winner.do("close") == "closed"


@pytest.mark.failure("31")
def test_who_owns_the_socket_is_named_as_the_one_who_listens(directory: Path) -> None:
    """After a takeover, not the process that made it: that one is about to end, or has been taken for another since."""
    listen = "import os, socket, sys; socket.socket(fileno=int(sys.argv[1])).listen(); print(os.getpid())"
    path = directory / "a.sock"
    with bind_unix(str(path)) as bound:
        number = bound.socket.fileno()
        argv = [sys.executable, "-c", listen, str(number)]
        child = int(subprocess.run(argv, pass_fds=(number,), capture_output=True, text=True, check=True).stdout)
        for expected in (child, os.getpid()):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                assert credentials_of(probe).pid == expected
            with pytest.raises(StartError, match=f"process {expected} already listens there"):
                bind_unix(str(path))
            bound.own()
