"""The two hosts of the manual, as they stand there, with a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.system.world import ask, established, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually, exchange, read_exactly

pytestmark = pytest.mark.netns

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

HOST_A = """\
# host-a.yaml: a static mesh of two hosts, no control plane
host: host-a
run_dir: /run/hostlane               # sockets that command: 0700, never mounted
socket_dir: /run/hostlane-services   # sockets that serve: what containers mount
links:
  listen: 10.77.0.1:7600
  security: none            # default: mtls
peers:
  host-b: {address: 10.77.0.2:7600, services: [redis]}
upstreams:
  redis: {listen: "unix:/run/hostlane-services/redis.sock"}
services:
  web: {deliver: "unix:/srv/web/web.sock"}       # or tcp:127.0.0.1:8080
"""

HOST_B = (CONFIGS / "host-b.yaml").read_text()


class Machine:
    """One host with a /run and a /srv of its own, so that both hosts can have the very same paths."""

    def __init__(self, host: LabHost, folder: Path, config: str) -> None:
        self.host, self.run, self.srv = host, folder / "run", folder / "srv"
        for directory in (folder, self.run, self.srv, self.srv / "web"):
            directory.mkdir()
        self.proxy = Proxy(config, folder, host=host)
        self.proxy.argv = self.private(self.proxy.argv)

    def private(self, argv: Sequence[str]) -> list[str]:
        """`ip netns exec` has given the command a mount namespace already; these mounts are seen in it alone."""
        script = f'mount --bind {self.run} /run && mount --bind {self.srv} /srv && exec "$@"'
        return ["sh", "-c", script, "sh", *argv]

    def command(self, *words: str) -> str:
        """A command of ``hostlane`` on this machine; its output, once it has succeeded."""
        done = subprocess.run(
            self.host.command(self.private(words)), capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def machines(lab: Lab) -> Iterator[SimpleNamespace]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        a, b = Machine(lab.a, folder / "a", HOST_A), Machine(lab.b, folder / "b", HOST_B)
        stack.enter_context(b.proxy)
        stack.enter_context(a.proxy)
        yield SimpleNamespace(a=a, b=b, folder=folder)


def test_the_examples_are_the_hosts_of_this_test() -> None:
    assert (CONFIGS / "host-a.yaml").read_text().partition("\n")[2] == HOST_A, "but for the editors' first line"


def test_both_ways_through_unix_sockets(machines: SimpleNamespace, lab: Lab) -> None:
    """web: Unix to Unix, from host-b to host-a; redis: Unix to TCP, the other way."""
    with (
        Echo(machines.a.srv / "web" / "web.sock") as web,
        Echo("tcp:127.0.0.1:6379", lab.b.socket()) as redis,
    ):
        with connect(machines.a.run / "hostlane-services" / "redis.sock") as client:
            exchange(client, b"to host-b")
        with connect(machines.b.run / "hostlane-services" / "web.sock") as client:
            exchange(client, b"to host-a")
        eventually(lambda: redis.ended == web.ended == 1, "both clean ends")
    machines.a.proxy.stop()
    machines.b.proxy.stop()
    for machine in (machines.a, machines.b):
        assert [*(machine.run / "hostlane").iterdir(), *(machine.run / "hostlane-services").iterdir()] == []


@pytest.mark.redis
def test_a_real_redis(machines: SimpleNamespace, lab: Lab) -> None:
    options = ["--bind", "127.0.0.1", "--port", "6379", "--save", "", "--dir", str(machines.folder)]
    server = lab.b.popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _use(machines.a.run / "hostlane-services" / "redis.sock")
    finally:
        server.kill()
        server.wait()


def _use(call: Path) -> None:

    def answers() -> bool:
        with connect(call) as client, suppress(BrokenPipeError, ConnectionResetError):  # it does not listen yet
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
        return False

    eventually(answers, "Redis answers through the mesh")
    value = bytes(range(256)) * 4096
    with connect(call) as client:
        client.sendall(
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" % (len(value), value)
        )
        assert read_exactly(client, 5) == b"+OK\r\n"
        assert read_exactly(client, 10 + len(value) + 2) == b"$%d\r\n%s\r\n" % (len(value), value)
    load = ["redis-benchmark", "-s", str(call), "-c", "50", "-n", "5000", "-t", "set,get", "-q"]
    said = subprocess.run(load, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.count("requests per second") == 2, said


@pytest.mark.failure(9)
def test_128_connections_share_two_links_and_everybody_agrees(machines: SimpleNamespace, lab: Lab) -> None:
    call = machines.a.run / "hostlane-services" / "redis.sock"
    with Echo("tcp:127.0.0.1:6379", lab.b.socket()), ExitStack() as stack:
        clients = [stack.enter_context(connect(call)) for _ in range(128)]
        for number, client in enumerate(clients):
            exchange(client, b"client %d" % number)
        counted = established(lab.a, "dst 10.77.0.2")
        assert 1 <= counted <= 2
        assert established(lab.b, "dst 10.77.0.1") == counted
        listed = json.loads(machines.a.command(*_hostlane("links", "--json")))
        assert len(listed) == counted
        assert sum(link["streams"] for link in listed) == 128
        status = ask(machines.a.run / "hostlane" / "admin.sock", "status")
        assert status["streams"] == 128
        assert status["handshakes_avoided"] >= 126
        assert len(json.loads(machines.b.command(*_hostlane("streams", "--json")))) == 128


def _hostlane(*words: str) -> list[str]:
    """The default socket is that of the machine: nothing to say."""
    return [*HOSTLANE, *words]


def test_the_manuals_files_are_valid() -> None:
    done = hostlane("validate", str(CONFIGS / "host-a.yaml"), str(CONFIGS / "host-b.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
