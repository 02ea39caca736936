"""The files of compose/, as they stand, on two real engines: a mesh with a control plane, both ways of upgrading"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.docker.composed import ComposeHost, compose_hosts
from tests.docker.traffic import HOLDER
from tests.tools.sockets import PATIENCE, eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

Hosts = tuple[ComposeHost, ComposeHost]
A = {"HOST": "host-a", "ADDRESS": "10.77.0.10"}
B = {"HOST": "host-b", "ADDRESS": "10.77.0.20", "FILE": "offering.yaml"}
PROXY, NEXT = "hostlane-proxy-1", "hostlane-next-1"
SERVER = ["redis-server", "--port", "0", "--unixsocket", "/data/redis.sock", "--unixsocketperm", "777", "--save", ""]
CLI = ["redis-cli", "-s", "/run/hostlane-services/redis.sock"]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Hosts]:
    """A control server and a proxy on A, a proxy and Redis on B, a container that can call it on A."""
    with compose_hosts() as (a, b):
        a.compose("control.yaml", "up", "--detach")
        a.healthy("hostlane-control-control-1")
        for host, given in ((a, A), (b, B)):
            token = ["hostlane", "token", "create", "--host", given["HOST"], "--config", "/etc/hostlane/control.yaml"]
            said = a.compose("control.yaml", "exec", "-T", "control", *token)
            (host.folder / "compose/host-simple/token").write_text(said)
            host.compose("host-simple.yaml", "up", "--detach", **given)
        b.engine.run("redis", SERVER, "--user=0:0", "--volume=hostlane-redis:/data")
        a.engine.run("client", ["sleep", "infinity"], "--volume=hostlane-sockets:/run/hostlane-services:ro")
        for host in (a, b):
            host.healthy(PROXY)
        eventually(lambda: answers(a), f"PONG{a.logs()}{b.logs()}", 3 * PATIENCE)
        yield a, b


def answers(a: ComposeHost) -> bool:
    return says(a, "exec", "client", "timeout", "5", *CLI, "ping") == "PONG"


def says(host: ComposeHost, *words: str) -> str:
    """What the client of Docker prints; empty if it fails."""
    try:
        return host.engine.docker(*words)
    except AssertionError:
        return ""


def test_an_upgrade_is_up_with_a_new_image(mesh: Hosts) -> None:
    a, b = mesh
    for host, given in ((a, A), (b, B)):
        host.engine.docker("tag", "hostlane", "hostlane:2")
        before = host.engine.docker("inspect", "--format={{.Id}}", PROXY)
        host.compose("host-simple.yaml", "up", "--detach", IMAGE="hostlane:2", **given)
        assert host.engine.docker("inspect", "--format={{.Id}}", PROXY) != before
        host.healthy(PROXY)
        eventually(lambda: answers(a), "PONG again", 3 * PATIENCE)


def test_the_next_proxy_cuts_no_stream(mesh: Hosts) -> None:
    """One connection, before and after, and a new one; on either side."""
    a, b = mesh
    shared = "--volume=hostlane-sockets:/run/hostlane-services:ro"
    a.engine.run("holder", ["python3", "-u", "-c", HOLDER], shared)
    eventually(lambda: a.engine.docker("logs", "holder") == "answered", f"the first answer{a.logs()}")
    for host, given in ((a, {**A, "NEXT_ADDRESS": "10.77.0.11"}), (b, {**B, "NEXT_ADDRESS": "10.77.0.21"})):
        host.engine.docker("update", "--restart=no", PROXY)
        host.compose("host-simple.yaml", "up", "--detach", "--no-deps", "next", **given)
        host.healthy(NEXT)
        assert host.state(PROXY) == "running"
        eventually(lambda: answers(a), "PONG by the next one", 3 * PATIENCE)
    assert a.state("holder") == "running", a.engine.docker("logs", "holder")
    a.engine.docker("rm", "--force", "holder")
    for host in (a, b):
        eventually(lambda host=host: host.state(PROXY) == "exited", "the end of the old process", 3 * PATIENCE)
        assert host.state(NEXT) == "running"


def test_check_names_the_price_of_the_network(mesh: Hosts) -> None:
    a, _ = mesh
    name = NEXT if a.state(PROXY) == "exited" else PROXY
    check = ["exec", name, "hostlane", "check", "--config", "/etc/hostlane/hostlane.yaml"]
    argv = ["docker", f"--host=unix://{a.engine.sockets}/docker.sock", *check]
    environment = a.engine.environment
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "docker-dns-conntrack" in said.stdout, said


@pytest.mark.parametrize(
    ("missing", "said"), [("HOST", "the name of this host"), ("ADDRESS", "an address outside the ip-range")]
)
def test_what_is_missing_is_said(mesh: Hosts, missing: str, said: str) -> None:
    """Compose names one of those that are missing, any."""
    a, _ = mesh
    given = {name: value for name, value in A.items() if name != missing}
    assert said in a.compose("host-simple.yaml", "up", fails=True, **given)


APP = """
services:
  app:
    image: hostlane-tests
    command: [sleep, infinity]
    volumes: ["/usr:/usr:ro", "/etc/ld.so.cache:/etc/ld.so.cache:ro"]
"""


def test_a_sidecar_and_its_application_come_and_go_by_themselves(mesh: Hosts) -> None:
    a, _ = mesh
    given = {"HOST": "shop", "ADDRESS": "10.77.0.30"}
    token = ["hostlane", "token", "create", "--host", "shop", "--config", "/etc/hostlane/control.yaml"]
    (a.folder / "compose/sidecar/token").write_text(a.compose("control.yaml", "exec", "-T", "control", *token))
    (a.folder / "app.yaml").write_text(APP)
    up = ("-f", "app.yaml", "up", "--detach")
    a.compose("sidecar.yaml", *up, **given)
    calls = ["exec", "hostlane-sidecar-app-1", "timeout", "5", "redis-cli", "-h", "redis", "ping"]
    eventually(lambda: says(a, *calls) == "PONG", f"PONG{a.logs()}", 3 * PATIENCE)
    for service in ("app", "proxy"):
        a.engine.docker("restart", "--time=5", f"hostlane-sidecar-{service}-1")
        eventually(lambda: says(a, *calls) == "PONG", f"PONG after a restart of {service}{a.logs()}", 3 * PATIENCE)
        a.compose("sidecar.yaml", *up, "--no-deps", "--force-recreate", service, **given)
        eventually(lambda: says(a, *calls) == "PONG", f"PONG after another {service}{a.logs()}", 3 * PATIENCE)
    a.compose("sidecar.yaml", "-f", "app.yaml", "down", **given)


ETCD = """
services:
  etcd:
    image: hostlane-tests
    user: "7600:7600"
    volumes: ["/usr:/usr:ro", "/etc/ld.so.cache:/etc/ld.so.cache:ro"]
    tmpfs: ["/var/lib/etcd:uid=7600,gid=7600,mode=0700"]
"""


def test_three_control_servers_and_one_dies() -> None:
    """The first and the third on one machine, under names of their own."""
    with compose_hosts() as (a, b):
        on = {"1": a, "2": b, "3": a}
        for host in (a, b):
            (host.folder / "etcd.yaml").write_text(ETCD)

        def three(number: str, *words: str) -> str:
            return on[number].compose(
                "three-control-etcd.yaml", "-f", "etcd.yaml", "-p", f"control-{number}", *words, NUMBER=number
            )

        tar = ["run", "--rm", "-T", "--entrypoint", "tar", "init"]
        three("1", "run", "--rm", "init")
        (a.folder / "ca.tar").write_text(three("1", *tar, "-cC", "/var/lib/hostlane-control", "ca"))
        for number in on:
            if number != "1":
                shutil.copy(a.folder / "ca.tar", on[number].folder / "compose/three-control-etcd/ca.tar")
                three(number, *tar, "-xC", "/var/lib/hostlane-control", "-f", "/etc/hostlane/ca.tar")
            three(number, "up", "--detach")
        for number, host in on.items():
            host.healthy(f"control-{number}-control-1")
            host.healthy(f"control-{number}-etcd-1")
        a.engine.docker("kill", "control-1-etcd-1", "control-1-control-1")
        token = ["hostlane", "token", "create", "--host", "host-a", "--config", "/etc/hostlane/control.yaml"]
        assert three("2", "exec", "-T", "control", *token).startswith("hostlane1.")
