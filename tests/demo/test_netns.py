"""Namespaces: commands that fail say so in one line, and a thread that entered one comes out again."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy.demo import netns


@pytest.fixture
def space() -> Iterator[str]:
    name = f"{netns.PREFIX}-{os.getpid()}-0-test"
    netns.add(name)
    yield name
    netns.delete(name)


def here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_run_returns_what_the_command_printed() -> None:
    assert netns.run(["cat"], stdin="as it came\n") == "as it came\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["hostlane-no-such-command"], "hostlane-no-such-command: not installed"),
        (["sh", "-c", "echo one >&2; echo two >&2; exit 3"], "one two"),
        (["false"], "false: exit code 1"),
    ],
)
def test_run_says_in_one_line_what_failed(argv: list[str], message: str) -> None:
    with pytest.raises(netns.LabError) as caught:
        netns.run(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.netns
def test_entered_comes_back_also_after_an_exception(space: str) -> None:
    home = here()
    with netns.entered(space):
        assert here() != home
    with pytest.raises(KeyError), netns.entered(space):
        raise KeyError
    assert here() == home


@pytest.mark.netns
def test_a_socket_belongs_to_the_namespace_for_ever(space: str) -> None:
    with netns.make_socket(space) as listener, socket.socket() as outside:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ConnectionRefusedError):
            outside.connect(listener.getsockname())
        with netns.make_socket(space) as inside:
            inside.connect(listener.getsockname())


def test_entering_an_unknown_namespace() -> None:
    with pytest.raises(FileNotFoundError), netns.entered("hostlane-no-such-namespace"):
        pass


@pytest.mark.netns
def test_pids_and_delete(space: str) -> None:
    process = subprocess.Popen(netns.inside(space, ["sh", "-c", "echo ready; exec sleep 600"]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as ready:
        assert ready.readline() == b"ready\n"
    assert netns.pids(space) == [process.pid]
    netns.delete(space)
    assert process.wait(10) == -9
    assert netns.pids(space) == []
    netns.delete(space)


@pytest.mark.netns
def test_abandoned_are_those_of_dead_processes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under a name of its own: other tests' labs, in other processes, remove at once what looks abandoned.
    own = "hostlane-abandoned"
    monkeypatch.setattr(netns, "_NAME", re.compile(netns._NAME.pattern.replace(netns.PREFIX, own, 1)))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan, living = (f"{own}-{pid}-0-test" for pid in (dead.pid, os.getpid()))
    try:
        for name in (orphan, living):
            netns.add(name)
        assert netns.abandoned() == [orphan]
    finally:
        for name in (orphan, living):
            netns.delete(name)
