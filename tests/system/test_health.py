"""What a supervisor finds out about a real proxy: by the image's probe, and as systemd's watchdog."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import randint

import pytest

from proxy.demo.mesh import HOSTLANE
from tests.system.cgroups import Cgroup
from tests.system.world import hostlane
from tests.tools.process import Process
from tests.tools.servers import Echo
from tests.tools.sockets import PATIENCE, connect, eventually, exchange

pytestmark = pytest.mark.failure("26")
PROBE = Path(__file__).resolve().parents[2] / "proxy" / "telemetry" / "probe.py"


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="hl-"))
    yield found
    shutil.rmtree(found)


def proxy(folder: Path, *environment: str) -> Process:
    """A proxy whose one peer is not there, with these settings of its environment."""
    net = f"127.{randint(1, 254)}.{randint(0, 255)}"
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"{net}.1:7600", "security": "none"},
        "peers": {"host-b": {"address": f"{net}.2:7600", "services": ["echo"]}},
        "upstreams": {"echo": {"listen": f"unix:{folder}/echo.sock"}},
        "log": {"format": "json"},
    }
    (folder / "f.yaml").write_text(json.dumps(config))
    return Process(["env", *environment, *HOSTLANE, "proxy", "--config", str(folder / "f.yaml")])


def probe(folder: Path, question: str) -> tuple[int, str]:
    argv = [sys.executable, "-I", "-S", str(PROBE), question, f"{folder}/run/admin.sock"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def test_the_probe_of_the_image_and_the_command(folder: Path) -> None:
    with proxy(folder) as running:
        running.wait_for("proxy ready")
        running.wait_for("cannot reach peer")
        assert probe(folder, "alive") == probe(folder, "ready") == (0, ""), "the other host is no part of it"
        code, said = probe(folder, "mesh")
        assert (code, json.loads(said)["problems"][0].partition(":")[0]) == (1, "host-b is down")
        config = ["--config", str(folder / "f.yaml")]
        done = hostlane("health", *config)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
        done = hostlane("health", "mesh", *config)
        assert (done.returncode, done.stdout, done.stderr.partition(":")[0]) == (1, "not mesh\n", "host-b is down")
        assert json.loads(hostlane("health", "alive", "--json", *config).stdout) == {"ok": True, "problems": []}

        (folder / "echo.sock").unlink()
        code, said = probe(folder, "ready")
        assert (code, json.loads(said)["ok"]) == (1, False)
        assert probe(folder, "alive") == (0, "")

        os.kill(running.pid, signal.SIGSTOP)
        try:
            assert probe(folder, "ready") == (1, f"{folder}/run/admin.sock: no answer in 4 s\n")
        finally:
            os.kill(running.pid, signal.SIGCONT)
        eventually(lambda: probe(folder, "alive") == (0, ""), "it goes on")
    assert probe(folder, "alive")[0] == 1
    assert hostlane("health", "--config", str(folder / "f.yaml")).returncode == 1


@contextmanager
def systemd(folder: Path) -> Iterator[socket.socket]:
    """The socket that it listens on; each message comes with the number of the process that sent it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.bind(str(folder / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def heard(sock: socket.socket) -> tuple[str, int]:
    """The next message and its sender."""
    data, [(_, _, credentials)], _, _ = sock.recvmsg(1000, socket.CMSG_SPACE(12))
    return data.decode(), int.from_bytes(credentials[:4], sys.byteorder)


def wait_for(sock: socket.socket, said: str, pid: int) -> None:
    while heard(sock) != (said, pid):
        pass


def test_the_watchdog_is_fed_and_follows_a_takeover(folder: Path) -> None:
    words = ["WATCHDOG_USEC=300000", f"NOTIFY_SOCKET={folder}/notify"]
    with systemd(folder) as sock, proxy(folder, *words) as running:
        # exec keeps the number, so that this process is the one that is meant.
        running.wait_for("proxy ready")
        wait_for(sock, "READY=1", running.pid)
        for _ in range(3):
            wait_for(sock, "WATCHDOG=1", running.pid)
        os.kill(running.pid, signal.SIGUSR2)
        new = int(running.wait_for("successor started")["pid"])
        wait_for(sock, f"MAINPID={new}", running.pid)
        wait_for(sock, "READY=1", new)
        for _ in range(3):
            wait_for(sock, "WATCHDOG=1", new)
        os.kill(new, signal.SIGSTOP)
        sock.setblocking(False)
        while True:
            try:
                heard(sock)
            except BlockingIOError:
                break
        sock.settimeout(1.0)  # three times what systemd would wait
        with pytest.raises(TimeoutError):
            heard(sock)
        os.kill(new, signal.SIGCONT)
        sock.settimeout(PATIENCE)
        wait_for(sock, "WATCHDOG=1", new)
        os.kill(new, signal.SIGTERM)
        while not heard(sock)[0].startswith("STOPPING=1"):
            pass
        assert not running.running or running.wait() == 0


def test_the_service_does_not_stop_with_a_process_that_was_taken_over(folder: Path) -> None:
    """systemd would kill what is left of it after TimeoutStopSec: the process that has taken over."""
    running = proxy(folder, f"NOTIFY_SOCKET={folder}/notify")
    config = json.loads((folder / "f.yaml").read_text())
    config["services"] = {"here": {"deliver": f"unix:{folder}/service.sock"}}
    config["upstreams"]["here"] = {"listen": f"unix:{folder}/here.sock"}
    (folder / "f.yaml").write_text(json.dumps(config))
    with Echo(f"unix:{folder}/service.sock"), systemd(folder) as sock, running:
        running.wait_for("proxy ready")
        with connect(folder / "here.sock") as client:
            exchange(client, b"keeps the old one")
            os.kill(running.pid, signal.SIGUSR2)
            new = int(running.wait_for("successor started")["pid"])
            wait_for(sock, "READY=1", new)
            os.kill(running.pid, signal.SIGTERM)
            eventually(lambda: not running.running, "the old one ends")
        os.kill(new, signal.SIGTERM)
        said, pid = heard(sock)
        assert said.startswith("STOPPING=1")
        assert pid == new


def test_the_watchdog_ends_with_a_takeover_by_a_process_of_another_service(folder: Path) -> None:
    """Such as one that somebody has started by hand: nobody reports any more, and systemd must not miss it."""
    words = ["WATCHDOG_USEC=300000", f"NOTIFY_SOCKET={folder}/notify"]
    with ExitStack() as stack:
        try:
            cgroup = stack.enter_context(Cgroup(1 << 30))
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error.strerror}")
        sock = stack.enter_context(systemd(folder))
        running = stack.enter_context(proxy(folder, *words))
        running.wait_for("proxy ready")
        wait_for(sock, "WATCHDOG=1", running.pid)
        command = [*HOSTLANE, "proxy", "--config", str(folder / "f.yaml"), "--takeover"]
        with Process(cgroup.inside(command)) as successor:
            # Read all the time: the socket's queue has room for ten messages, and what does not fit is not sent again.
            wait_for(sock, f"MAINPID={successor.pid}", running.pid)
            wait_for(sock, "WATCHDOG_USEC=0", running.pid)
            successor.wait_for("proxy taken over")
            assert running.wait() == 0


def test_another_process_is_meant(folder: Path) -> None:
    with systemd(folder) as sock, proxy(
        folder, "WATCHDOG_USEC=100000", "WATCHDOG_PID=1", f"NOTIFY_SOCKET={folder}/notify"
    ) as running:
        running.wait_for("proxy ready")
        wait_for(sock, "READY=1", running.pid)
        sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            heard(sock)
