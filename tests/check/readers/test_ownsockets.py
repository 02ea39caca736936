"""A proxy runs, and somebody has removed its sockets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.check.readers import ownsockets
from proxy.check.report import Unchecked
from proxy.check.rules.sockets import MissingSocket
from proxy.config.schema import load
from tests.check.ground import Ground, findings, names
from tests.tools.process import Proxy
from tests.tools.sockets import eventually, free_port

pytestmark = pytest.mark.failure("30")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def proxy(folder: Path) -> Iterator[Proxy]:
    config: dict[str, Any] = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "socket_dir": f"{folder}/services",
        "telemetry": {"socket": f"{folder}/telemetry/status.sock"},
        "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
        "services": {"echo": {"deliver": "tcp:127.0.0.1:9"}},
        "upstreams": "all",
        "log": {"format": "json"},
    }
    with Proxy(config, folder) as running:
        yield running


def read(proxy: Proxy) -> list[str]:
    found = ownsockets.missing(load(proxy.file))
    assert not any(isinstance(each, Unchecked) for each in found)
    return [each.read for each in found if isinstance(each, MissingSocket)]


PATHS = ["run/admin.sock", "run/next.sock", "telemetry/status.sock", "services/echo.sock"]


def file(path: Path) -> None:
    path.write_text("mine")


IN_THE_WAY = list(zip(PATHS, [Path.mkdir, file, file, Path.mkdir], strict=True))


@pytest.mark.parametrize(("lost", "make"), IN_THE_WAY, ids=PATHS)
def test_one_that_something_stands_in_the_place_of(
    proxy: Proxy, folder: Path, lost: str, make: Callable[[Path], object]
) -> None:
    """At once, and when the proxy has said why it cannot put it back."""
    assert read(proxy) == []
    path = folder / lost
    path.unlink()
    make(path)
    [line] = read(proxy)
    assert str(path) in line
    proxy.wait_for("a socket's file is gone, and cannot be bound again")
    [line] = read(proxy)
    assert f"unix:{path}: " in line
    path.rmdir() if path.is_dir() else path.unlink()
    proxy.wait_for("somebody had removed a socket's file: it is bound again")
    assert read(proxy) == []


def test_where_nobody_can_be_asked(proxy: Proxy, folder: Path) -> None:
    """The lock of the admin socket says that a proxy runs."""
    for lost in (folder / "telemetry" / "status.sock", folder / "run" / "admin.sock"):
        lost.unlink()
        lost.mkdir()
    assert [line.partition(" ")[0] for line in read(proxy)] == [str(folder / path) for path in (PATHS[0], PATHS[2])]
    for lost in (folder / "telemetry" / "status.sock", folder / "run" / "admin.sock"):
        lost.rmdir()
    eventually(lambda: not read(proxy), "they are back")
    proxy.stop()
    assert read(proxy) == []


def test_one_that_does_not_answer(folder: Path, proxy: Proxy) -> None:
    """As for a user that may not ask. (With the socket for monitoring, one is asked there.)"""
    config = json.loads(proxy.file.read_text())
    del config["telemetry"]
    proxy.file.write_text(json.dumps(config))
    assert ownsockets.missing(load(proxy.file)) == ()
    os.unlink(folder / "run" / "admin.sock")
    dead = folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
        os.rename(dead, folder / "run" / "admin.sock")
    [found] = ownsockets.missing(load(proxy.file))
    assert isinstance(found, Unchecked)
    assert "nobody listens there" in found.why


@pytest.mark.netns
def test_the_command_says_so(proxy: Proxy, folder: Path) -> None:
    with Ground(("sockets",)) as ground:
        assert names(ground.check(ground.here, proxy.file)) == set()
        (folder / "services" / "echo.sock").unlink()
        (folder / "services" / "echo.sock").mkdir()
        proxy.wait_for("a socket's file is gone, and cannot be bound again")
        found = findings(ground.check(ground.here, proxy.file))["missing-socket"]
        assert found.read.startswith(f"cannot listen on unix:{folder}/services/echo.sock: ")
