from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from control.base.system import logs
from proxy import commands
from proxy.agent import process
from proxy.config.schema import Config, load
from proxy.core.finder import core
from proxy.demo import runner
from proxy.errors import ConfigError, HandshakeError, StartError
from tests.tools.sockets import free_port

GOOD = "host: a\nlinks: {listen: 127.0.0.1:7600, security: none}\nlog: {format: json}\n"
BAD = "host: A\nlinks: {listen: 127.0.0.1, security: none}\n"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """``proxy`` sets up logging for its process, which is this one."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.close()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(GOOD)
    return path


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def ending_with(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    """Let the proxy end with ``error`` instead of running."""

    async def end(config: Config, file: str, takeover: bool) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(process, "run", end)


def test_a_wrong_configuration_starts_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending_with(monkeypatch, AssertionError("started"))
    file.write_text(BAD)
    done = run(commands.proxy, "--config", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2


def test_a_proxy_that_was_told_to_stop(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending_with(monkeypatch, None)
    done = run(commands.proxy, "--config", file)
    assert (done.exit_code, done.output) == (0, "")


START = StartError("cannot listen on unix:/x: it is a directory")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (START, 2, f"hostlane: {START}\n"),
        (ExceptionGroup("", [START]), 2, f"hostlane: {START}\n"),
        (
            ExceptionGroup("", [ExceptionGroup("", [START]), HandshakeError("no")]),
            2,
            f"hostlane: {START}\nhostlane: no\n",
        ),
        (ConfigError(["f:1: a", "f:2: b"]), 2, "f:1: a\nf:2: b\n"),
        (HandshakeError("no"), 1, "hostlane: no\n"),
        (KeyboardInterrupt(), 1, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt(), START]), 1, ""),
    ],
    ids=["start", "group", "groups", "config", "other", "ctrl-c", "ctrl-c-group"],
)
def test_expected_ends(file: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str) -> None:
    ending_with(monkeypatch, error)
    done = run(commands.proxy, "--config", file)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(
    "error",
    [
        LookupError("a bug"),
        ExceptionGroup("", [LookupError("a bug")]),
        ExceptionGroup("", [LookupError("a bug"), START]),
    ],
)
def test_a_bug_is_one_event(file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    ending_with(monkeypatch, error)
    # A real file: what is logged goes to a descriptor.
    with open(file.with_suffix(".err"), "w+", encoding="utf-8") as stderr, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stderr)
        assert commands.serve(load(file), str(file)) == 1
        logs.close()
        stderr.seek(0)
        (line,) = stderr.read().splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["error"]) == ("proxy failed", "error", "LookupError: a bug")
    assert "Traceback (most recent call last)" in event["traceback"]


@pytest.mark.parametrize("code", [0, 1, 130])
def test_demo_passes_its_exit_code_on(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(runner, "main", lambda: code)
    assert run(commands.demo).exit_code == code


MAIN = [sys.executable, "-c", "from control.cli.main import main; main()"]


def configured(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(
        f"host: a\nrun_dir: {tmp_path}/run\nlinks: {{listen: 127.0.0.1:{port}, security: none}}\n"
        f"services: {{echo: {{deliver: 'unix:/nowhere'}}}}\n"
        f"upstreams: {{echo: {{listen: 'unix:{tmp_path}/echo.sock'}}}}\n"
    )
    return path


def test_a_real_proxy(tmp_path: Path) -> None:
    """Up, asked, told to stop: everything a user does, in processes of its own."""
    file = configured(tmp_path, free_port())
    proxy = subprocess.Popen([*MAIN, "proxy", "--config", str(file)], stderr=subprocess.PIPE, text=True)
    try:
        assert proxy.stderr is not None
        said = [json.loads(proxy.stderr.readline()) for _ in range(2)]
        assert [(entry["level"], entry["event"]) for entry in said] == [
            ("warning", "links are neither encrypted nor authenticated"), ("info", "proxy ready"),
        ]  # fmt: skip
        done = subprocess.run(
            [*MAIN, "status", "--json", "--config", str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["pid"] == proxy.pid
        assert json.loads(done.stdout)["core"] == said[1]["core"] == core()
        second = subprocess.run(
            [*MAIN, "proxy", "--config", str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 2
        assert len(second.stderr.splitlines()) == 1
        proxy.send_signal(signal.SIGTERM)
        rest = proxy.stderr.read()
        assert proxy.wait(60) == 0
        assert json.loads(rest.splitlines()[-1])["event"] == "proxy stopped"
        assert os.listdir(tmp_path / "run") == []
    finally:
        proxy.kill()
        proxy.communicate()


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [*MAIN, "proxy", "--config", str(configured(tmp_path, port))],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("hostlane: ")
    assert f"127.0.0.1:{port}" in line
