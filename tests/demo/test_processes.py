"""Processes end together, and the demo can say in one line what one of them died of."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import processes
from proxy.demo.loopback import Loopback
from proxy.demo.processes import BackgroundProcess, DemoError


def await_end(service: BackgroundProcess) -> str:
    """What `check` says once the process has ended."""
    service._process.wait(30)
    with pytest.raises(DemoError) as caught:
        service.check()
    return str(caught.value)


def test_check_quotes_the_last_line(tmp_path: Path) -> None:
    with Loopback() as machine:
        script = "echo first; echo port 7600 in use >&2; exit 2"
        service = BackgroundProcess("the proxy of host-a", machine.a, ["sh", "-c", script], tmp_path / "log")
        assert await_end(service) == "the proxy of host-a ended (exit code 2): port 7600 in use"


def test_check_of_a_silent_death(tmp_path: Path) -> None:
    with Loopback() as machine:
        service = BackgroundProcess("redis-server", machine.a, ["sh", "-c", "kill -9 $$"], tmp_path / "log")
        assert await_end(service) == "redis-server ended (SIGKILL): it wrote nothing"


def test_check_of_a_running_process(tmp_path: Path) -> None:
    with Loopback() as machine:
        BackgroundProcess("sleep", machine.a, ["sleep", "600"], tmp_path / "log").check()


def test_stop_ends_all_and_kills_the_stubborn() -> None:
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    polite = subprocess.Popen(["sleep", "600"])
    done = subprocess.Popen(["true"])
    done.wait()
    processes.stop([stubborn, polite, done], patience=0.1)
    assert [stubborn.returncode, polite.returncode, done.returncode] == [-signal.SIGKILL, -signal.SIGTERM, 0]
    assert stubborn.stdout.closed


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Python leaves SIGINT ignored when a shell started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_signals_wait_for_the_end_of_the_block() -> None:
    reached, blocked = False, signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt), processes.signals_held():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_interruptible")
def test_a_process_that_is_begun_is_noted_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = begun(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(processes.subprocess, "Popen", interrupted)
    noted: list[subprocess.Popen[Any]] = []
    with pytest.raises(KeyboardInterrupt):
        processes.begin(["sleep", "600"], noted, {})
    processes.stop(noted)
    assert [process.returncode for process in noted] == [-signal.SIGTERM], "nothing of a held signal is inherited"


def test_outside_the_main_thread_signals_are_not_touched() -> None:
    handlers = []

    def look() -> None:
        with processes.signals_held():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (2, "exit code 2"), (-15, "SIGTERM")])
def test_ended(code: int, words: str) -> None:
    assert processes.ended(code) == words
