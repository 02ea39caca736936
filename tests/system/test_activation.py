"""Sockets that were open before the proxy was: as systemd passes them, with a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import randint
from typing import Any

import pytest

from proxy.demo.mesh import HOSTLANE
from tests.tools.process import Process
from tests.tools.servers import Echo
from tests.tools.sockets import connect, exchange

LAUNCHER = """
import json, os, socket, sys
places, argv = json.loads(sys.argv[1]), sys.argv[2:]
for number, place in enumerate(places, 3):
    sock = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    sock.bind(place if isinstance(place, str) else tuple(place))
    sock.listen(10)
    if sock.fileno() != number:
        os.dup2(sock.fileno(), number)
        sock.close()
    else:
        sock.detach()
    os.set_inheritable(number, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(places)))
os.execv(argv[0], argv)
"""


SUPERVISOR = """
import json, os, signal, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen(10)
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
for _ in range(2):
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1, signal.SIGTERM])
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        os.execv(sys.argv[2], sys.argv[2:])
    signal.sigwait([signal.SIGTERM])
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    print(json.dumps({"event": "the proxy is gone"}), flush=True)
    signal.sigwait([signal.SIGUSR1])
"""
"""Holds a socket, as systemd does, and runs one proxy after the other: SIGTERM ends one, SIGUSR1 starts the next."""


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="hl-"))
    yield found
    shutil.rmtree(found)


def launched(folder: Path, places: list[Any], upstream: str, address: tuple[str, int]) -> Process:
    """A proxy that gets sockets at these places, and whose one service is one of its own host."""
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": "{}:{}".format(*address), "security": "none"},
        "upstreams": {"echo": {"listen": upstream}},
        "services": {"echo": {"deliver": f"unix:{folder}/echo.sock"}},
        "limits": {"stop_timeout": "20s"},
        "log": {"format": "json"},
    }
    (folder / "f.yaml").write_text(json.dumps(config))
    proxy = [*HOSTLANE, "proxy", "--config", str(folder / "f.yaml")]
    return Process([sys.executable, "-c", LAUNCHER, json.dumps(places), *proxy])


def loopback() -> tuple[str, int]:
    return f"127.{randint(1, 254)}.{randint(0, 255)}.{randint(1, 254)}", 7600


def test_callers_come_through_them(folder: Path) -> None:
    path, address = f"{folder}/calls.sock", loopback()
    with Echo(f"unix:{folder}/echo.sock"), launched(folder, [list(address), path], f"unix:{path}", address) as proxy:
        proxy.wait_for("proxy ready")
        with connect(path) as client:
            exchange(client, b"hello")
        connect("tcp:{}:{}".format(*address)).close()
        proxy.stop()
        assert Path(path).is_socket(), "systemd's to remove"


@pytest.mark.failure("24")
def test_late_callers_wait_for_the_next_process(folder: Path) -> None:
    path, address = f"{folder}/calls.sock", loopback()
    argv = launched(folder, [], f"unix:{path}", address).argv[4:]
    with Echo(f"unix:{folder}/echo.sock"), Process([sys.executable, "-c", SUPERVISOR, path, *argv]) as world:
        world.wait_for("proxy ready")
        with connect(path) as client, connect(path) as other:
            exchange(client, b"hello")
            os.kill(world.pid, signal.SIGTERM)
            world.wait_for("proxy stopping")
            exchange(client, b"still there")
            with connect(path) as late:
                exchange(late, b"served during the stop")
            client.close()
            other.close()
            world.wait_for("the proxy is gone")
        with connect(path) as late:
            late.sendall(b"between the two")
            os.kill(world.pid, signal.SIGUSR1)
            assert late.recv(100) == b"between the two"
        os.kill(world.pid, signal.SIGTERM)
        world.wait_for("the proxy is gone", since=world.log.index(world.events("the proxy is gone")[0]) + 1)
        os.kill(world.pid, signal.SIGUSR1)
        assert world.wait() == 0


def test_one_that_fits_nothing_ends_the_start_with_a_line(folder: Path) -> None:
    path, address = f"{folder}/calls.sock", loopback()
    proxy = launched(folder, [f"{folder}/other.sock", path], f"unix:{path}", address)
    proxy.start()
    assert proxy.wait() == 2
    assert [entry["text"] for entry in proxy.log] == [
        f"environment: LISTEN_FDS: descriptor 3: found unix:{folder}/other.sock; "
        "allowed: what an upstream listens on, connect.listen or links.listen"
    ]
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(path)
