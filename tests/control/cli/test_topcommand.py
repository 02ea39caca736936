from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from control.cli.topcommand import frame, top
from control.cli.topview import VIEWS, TopState
from tests.control.cli.conftest import Proxy
from tests.control.cli.test_longvalues import TOLD
from tests.control.cli.test_topview import BEFORE, NOW

PATIENCE = 60.0
CODE = "from control.cli.topcommand import top; top()"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (30, 6)])
def test_a_frame_fits_the_screen(view: str, width: int, height: int) -> None:
    lines = frame(TopState(view=view, filter="", paused=True), NOW, BEFORE, "nobody answers " * 20, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("waiting for an answer: nobody")
    assert lines[-1].startswith("paused")


def test_without_a_terminal(proxy: Proxy) -> None:
    proxy.answers.update(TOLD)
    done = CliRunner().invoke(top, ["--socket", proxy.path, "--count", "2", "--interval", "1ms"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("host-a  up") == 2
    assert "\x1b" not in done.stdout
    only = CliRunner().invoke(top, ["--socket", proxy.path, "--count", "1", "--view", "hosts", "--filter", "rack-c"])
    assert "host-c.rack-c.example  down" in only.stdout
    assert "host-b.rack-b.example  down" not in only.stdout


def test_nobody_is_one_line() -> None:
    done = CliRunner().invoke(top, ["--socket", "/nowhere/x.sock"])
    assert (done.exit_code, done.stderr) == (1, "hostlane: /nowhere/x.sock: no such socket; is the proxy running?\n")


def test_keys_on_a_terminal(proxy: Proxy) -> None:
    proxy.answers.update(TOLD)
    seen, wait_for, terminal, process = started(proxy, TERM="xterm", COLUMNS="80")
    try:
        wait_for("redis")
        os.write(terminal, b"2")
        wait_for("host-b/1")
        proxy.stop()
        wait_for("waiting for an answer")
        proxy.start()
        os.write(terminal, b"3/rack-c\r")
        wait_for("filter: rack-c")
        os.write(terminal, b"q")
        wait_for("\x1b[?1049l")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert seen


def test_a_dumb_terminal_gets_lines(proxy: Proxy) -> None:
    proxy.answers.update(TOLD)
    seen, wait_for, terminal, process = started(proxy, "--count", "2", TERM="dumb", COLUMNS="80")
    try:
        wait_for("redis")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert "\x1b" not in "".join(seen)


def started(
    proxy: Proxy, *arguments: str, **settings: str
) -> tuple[list[str], Callable[[str], None], int, subprocess.Popen[bytes]]:
    """What has been seen so far, what waits until something is, the terminal, and the process."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-c", CODE, "--socket", proxy.path, "--interval", "50ms", *arguments]
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=os.environ | settings)
    os.close(slave)
    seen: list[str] = []

    def wait_for(text: str) -> None:
        so_far, limit = "", time.monotonic() + PATIENCE
        while text not in so_far:
            assert select.select([master], [], [], max(0, limit - time.monotonic()))[0], so_far
            part = os.read(master, 65536).decode("utf-8", "replace")
            seen.append(part)
            so_far += part

    return seen, wait_for, master, process
