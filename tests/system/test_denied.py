"""A proxy on a host that denies it something: it says so once, goes on with the rest, and does not spin."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.world import hostlane
from tests.tools.process import Proxy
from tests.tools.sockets import connect, eventually, free_port, free_ports


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


def sleeps(pid: int) -> bool:
    """Whether the process waits for something just now (proc(5), the field "state")."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOMEM], ids=errno.errorcode.get)
def test_whoever_asks_is_told_of_it(folder: Path, code: int) -> None:
    """`status`, `health` and `check`, where callers cannot be accepted and whoever asks can."""
    listens = {"echo": f"unix:{folder}/echo.sock", "more": f"tcp:127.0.0.1:{free_port()}"}
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
        "peers": {"host-b": {"address": "127.0.0.2:9", "services": ["echo", "more"]}},
        "upstreams": {name: {"listen": listen} for name, listen in listens.items()},
        "log": {"format": "json"},
    }
    proxy = Proxy(config, folder)
    proxy.argv = [sys.executable, "-m", "tests.tools.seccomp", "--pump", str(code), *proxy.argv]
    why = f"cannot accept a connection: {os.strerror(code)}"
    with proxy, ExitStack() as callers:
        asked = ["--config", str(proxy.file)]
        assert hostlane("health", *asked).returncode == 0, "nobody has called"
        for listen in listens.values():
            callers.enter_context(connect(listen))
            proxy.wait_for("cannot accept a connection", listen=listen, error=os.strerror(code))
        lines = [f"{listen}: {why}" for listen in listens.values()]
        status = hostlane("status", *asked)
        assert status.returncode == 1
        assert {f"hostlane: {line}" for line in lines} <= {*status.stderr.splitlines()}
        told = json.loads(hostlane("status", "--json", *asked).stdout)
        assert [each["held_back"] for each in told["upstreams"]] == [why, why]
        health = hostlane("health", "ready", *asked)
        assert (health.returncode, health.stderr.splitlines()) == (1, lines)
        [group] = json.loads(hostlane("check", "--json", "--only", "proxy", *asked).stdout)["groups"]
        assert [(each["name"], each["level"], each["read"]) for each in group["findings"]] == [
            ("cannot-accept", "wrong", line) for line in lines
        ]


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_kernel_that_denies_accept(folder: Path, code: int) -> None:
    links, more = free_ports(2)
    listens = [f"unix:{folder}/echo.sock", f"tcp:127.0.0.1:{links}", f"tcp:127.0.0.1:{more}"]
    said = [*listens[:1], listens[2], "links.listen", "admin.sock"]
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{links}", "security": "none"},
        "peers": {"host-b": {"address": "127.0.0.2:9", "services": ["echo", "more"]}},
        "upstreams": {"echo": {"listen": listens[0]}, "more": {"listen": listens[2]}},
        "log": {"format": "json"},
    }
    proxy = Proxy(config, folder)
    proxy.argv = [sys.executable, "-m", "tests.tools.seccomp", str(code), *proxy.argv]
    with proxy, ExitStack() as callers:
        for listen in (*listens, f"unix:{folder}/run/admin.sock"):
            callers.enter_context(connect(listen))
        for listen in said:
            proxy.wait_for("cannot accept a connection", listen=listen, error=os.strerror(code))
        eventually(lambda: sleeps(proxy.pid), "it waits")
        assert len(proxy.events("cannot accept a connection")) == 4, "once each"
