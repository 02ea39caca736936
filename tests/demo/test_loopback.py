"""Loopback hosts run commands where they are, and end what they started."""

from __future__ import annotations

import signal
import subprocess

import pytest

from proxy.demo.loopback import Loopback


def test_command_is_unchanged() -> None:
    machine = Loopback()
    assert machine.a.command(("ls", "-l")) == ["ls", "-l"]
    assert machine.b.command(["ls"], container=True) == ["ls"]


def test_processes_end_with_the_block_also_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), Loopback() as machine:
        process = machine.b.popen(["sleep", "600"], container=True)
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGTERM


def test_processes_have_a_session_of_their_own() -> None:
    with Loopback() as machine:
        process = machine.a.popen(["sh", "-c", "cut -d' ' -f6 /proc/$$/stat"], stdout=subprocess.PIPE)
        assert int(process.communicate(timeout=30)[0]) == process.pid
