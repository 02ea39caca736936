"""What the documents type for containers, word for word, on two hosts that have Docker and nothing else: docs/image.md,
docs/upgrade.md, docs/operations.md, docs/network.md, README.md, and the heads of compose/*.yaml.

No image is pulled: `python:3.11-slim`, `redis:7` and etcd's are images made of Debian under these names. The lines of a
block follow each other at once; between two blocks that is waited for which the second needs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.docker import images
from tests.docker.bare import CLONE, BareHost, bare_hosts, import_programs
from tests.docker.outside import way_out
from tests.docker.programs import ROOT
from tests.docker.traffic import HOLDER
from tests.tools.documents import block
from tests.tools.sockets import PATIENCE, eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

Hosts = tuple[BareHost, BareHost]
BRIDGE = "172.17.0.1"
"""The engine's address on its own bridge, where builds run."""
ETCD = "quay.io/coreos/etcd:v3.5.21"
REDIS = "redis-server --port 0 --unixsocket /data/redis.sock --unixsocketperm 777"
CALLS = (
    "docker run --rm --network none -v {}:/run/hostlane-services:ro redis:7 "
    "redis-cli -s /run/hostlane-services/redis.sock ping"
)
ALONE = {"host": "host-a", "links": {"listen": "127.0.0.1:7600", "security": "none"}}
LONG = 3 * PATIENCE


@pytest.fixture(scope="module")
def built() -> Iterator[Hosts]:
    """Two hosts; the image was built on A as docs/image.md says, and given to B."""
    with ExitStack() as stack:
        a, b = stack.enter_context(bare_hosts())
        for host in (a, b):
            import_programs(host, "redis:7", ["redis-server", "redis-cli", "redis-benchmark", "sleep"], ["tmp", "data"])
            import_programs(host, ETCD, ["etcd", "etcdctl"], ["tmp"])
        proxy = stack.enter_context(way_out(a.host.socket(), BRIDGE))
        images.import_base_behind(a, proxy)
        types(a, block("docs/image.md", "docker build -t hostlane ."))
        a.docker("save", f"--output={b.files}/image.tar", images.IMAGE)
        b.docker("load", f"--input={b.files}/image.tar")
        yield a, b


@pytest.fixture
def hosts(built: Hosts) -> Iterator[Hosts]:
    """The same, without what other tests have left there."""
    yield built
    for host in built:
        if ids := host.docker("ps", "--all", "--quiet").split():
            host.docker("rm", "--force", *ids)
        host.docker("network", "prune", "--force")
        host.docker("volume", "prune", "--all", "--force")
        host.types("rm -rf /etc/hostlane /etc/hostlane-2")


def types(host: BareHost, text: str, *, cwd: str = CLONE) -> str:
    """What is printed; AssertionError if one of the lines fails."""
    done = host.types(f"set -e\n{text}", limit=900, cwd=cwd)
    if done.returncode != 0:
        names = host.docker("ps", "--all", "--format={{.Names}}").split()
        logs = "".join(f"\n{name}: {host.log(name)[-5:]}" for name in names)
        raise AssertionError(f"{text}: {done.stdout}{logs}")
    return done.stdout


@contextmanager
def typing(host: BareHost, text: str) -> Iterator[Future[str]]:
    """Lines that go on while the block does, which must have them end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(types, host, text)


def is_healthy(host: BareHost, name: str) -> bool:
    return state(host, name, "Health.Status") == "healthy"


def state(host: BareHost, name: str, what: str = "Status") -> str:
    """Empty: there is no such container."""
    return host.types(f"docker inspect --format='{{{{.State.{what}}}}}' {name} 2> /dev/null").stdout.strip()


def answers(host: BareHost, volume: str) -> bool:
    """Whether Redis is reached through the sockets in a volume."""
    return host.types(f"timeout 10 {CALLS.format(volume)}").stdout.strip() == "PONG"


def hold(host: BareHost, volume: str) -> None:
    """Open a connection to Redis, and wait for its first answer."""
    host.run("holder", ["python3", "-u", "-c", HOLDER], f"--volume={volume}:/run/hostlane-services:ro")
    eventually(lambda: host.docker("logs", "holder") == "answered", "the first answer")


def writes(host: BareHost, path: str, content: object) -> None:
    """JSON is YAML."""
    folder = path.rpartition("/")[0]
    host.host_run("sh", "-c", f'mkdir -p {folder} && printf %s "$0" > {path}', json.dumps(content))


def lines_of(text: str, host: str) -> str:
    """Those of a block of which each line is for the host that its end names."""
    return "\n".join(line for line in text.splitlines() if line.endswith(f"# {host}"))


def token_of(said: str) -> str:
    """What is printed beside it goes to a terminal."""
    [found] = re.findall(r"^hostlane1\..*", said, re.MULTILINE)
    return found


def head(name: str) -> list[str]:
    """The commands in the first lines of a file of compose/."""
    text = (ROOT / "compose" / name).read_text().partition("\nname:")[0]
    return re.findall(r"^#   ((?:export|\w+=|docker).*)", text, re.MULTILINE)


def test_a_proxy_on_a_root_that_it_cannot_write(hosts: Hosts) -> None:
    a, _ = hosts
    writes(a, "/etc/hostlane/hostlane.yaml", ALONE)
    with typing(a, block("docs/image.md", "docker run --read-only")) as run:
        eventually(lambda: run.done() or a.docker("ps", "--quiet") != "", "the container")
        name = a.docker("ps", "--quiet")
        eventually(lambda: run.done() or is_healthy(a, name), "its health", LONG)
        a.docker("stop", name)
        assert "proxy ready" in run.result()


def test_a_takeover_between_two_containers(hosts: Hosts) -> None:
    """docs/upgrade.md, in a static mesh: a connection that is open goes on, and the old container ends with it."""
    a, b = hosts
    listening = {"a": "10.77.0.10", "b": "10.77.0.20", "next": address("docs/upgrade.md")}
    for host, name in ((a, "# host A"), (b, "# host B")):
        types(host, lines_of(block("docs/image.md", "docker network create"), name.removeprefix("# ")))
    b.docker("run", "--detach", "--network=none", "--volume=redis:/data", "redis:7", *REDIS.split())
    writes(b, "/etc/hostlane/hostlane.yaml", {
        "host": "host-b", "links": {"listen": f"{listening['b']}:7600", "security": "none"},
        "peers": {"host-a": {"address": f"{listening['a']}:7600"}},
        "services": {"redis": {"deliver": "unix:/srv/redis/redis.sock"}},
    })  # fmt: skip
    for folder, own in (("/etc/hostlane", listening["a"]), ("/etc/hostlane-2", listening["next"])):
        writes(a, f"{folder}/hostlane.yaml", {
            "host": "host-a", "links": {"listen": f"{own}:7600", "security": "none"}, "takeover": {"from": "any"},
            "peers": {"host-b": {"address": f"{listening['b']}:7600", "services": ["redis"]}},
            "upstreams": {"redis": {"listen": "unix:/run/hostlane-services/redis.sock"}},
        })  # fmt: skip
    etc = "-v /etc/hostlane:/etc/hostlane:ro hostlane"
    types(b, f"docker run -d --name proxy --network lane --ip {listening['b']} -v redis:/srv/redis:ro {etc}")
    own = "-v run:/run/hostlane -v sockets:/run/hostlane-services"
    types(a, f"docker run -d --name hostlane-1 --restart always --network lane --ip {listening['a']} {own} {etc}")
    eventually(lambda: answers(a, "sockets"), "PONG", LONG)
    hold(a, "sockets")
    with typing(a, block("docs/upgrade.md", "docker update")) as upgrade:
        try:
            eventually(lambda: upgrade.done() or a.said("hostlane-2", "proxy taken over"), "the takeover", LONG)
            eventually(lambda: upgrade.done() or is_healthy(a, "hostlane-2"), "its health", LONG)
            eventually(lambda: upgrade.done() or answers(a, "sockets"), "PONG by the new one", LONG)
            assert [state(a, name) for name in ("hostlane-1", "hostlane-2", "holder")] == ["running"] * 3
            assert not upgrade.done()
        finally:
            a.docker("rm", "--force", "holder")
        assert upgrade.result(LONG).splitlines()[-2:] == ["0", "hostlane-1"]
    assert state(a, "hostlane-1") == ""
    assert answers(a, "sockets")


def address(document: str) -> str:
    """The one that a block gives the new container."""
    [found] = re.findall(r"--ip (\S+)", block(document, "docker update"))
    return found


def test_a_control_server_in_a_container(hosts: Hosts) -> None:
    """docs/operations.md: a host joins it, by the port that the engine publishes."""
    a, b = hosts
    for host, own in ((a, "10.0.0.5"), (b, "10.0.0.6")):
        host.host_run("ip", "address", "add", f"{own}/24", "dev", "eth0")
    writes(a, "/etc/hostlane/control.yaml", {"name": "control-1", "listen": "0.0.0.0:7601"})
    types(a, block("docs/operations.md", "docker run"))
    eventually(lambda: a.types("docker exec control hostlane hosts").returncode == 0, "the control server", LONG)
    token = token_of(types(a, "docker exec control hostlane token create --host host-b"))
    writes(b, "/etc/hostlane/hostlane.yaml", {
        "host": "host-b", "links": {"listen": "10.0.0.6:7600"},
        "control": {"servers": ["10.0.0.5:7601"], "token_file": "/etc/hostlane/token"},
    })  # fmt: skip
    types(b, f"echo {token} > /etc/hostlane/token")
    types(b, "docker run -d --name proxy --network host -v /etc/hostlane:/etc/hostlane:ro hostlane")
    eventually(lambda: "host-b" in types(a, "docker exec control hostlane hosts"), "the host", LONG)


def test_an_interface_by_a_containers_name(hosts: Hosts) -> None:
    """docs/network.md; each way of `net attach` by itself, with `net detach` after it."""
    a, b = hosts
    types(a, f"mkdir -p /opt/hostlane/bin && ln -sf {sys.prefix}/bin/hostlane /opt/hostlane/bin")
    path = "export PATH=/opt/hostlane/bin:$PATH\n"
    own = {"parent": "eth0", "addresses": ["10.77.0.102/24"]}
    writes(a, "/root/host-a.yaml", {**ALONE, "containers": {"web-1": own}})
    b.host_run("ip", "address", "add", "10.77.0.2/24", "dev", "eth0")
    types(a, "docker run -d --name web-1 --network none redis:7 redis-server --protected-mode no")
    first, second, _, detach = block("docs/network.md", "hostlane net attach web-1").splitlines()
    for line, at in ((first, "10.77.0.102"), (second, "10.77.0.101")):
        types(a, path + line, cwd="/root")
        eventually(lambda at=at: b.types(f"timeout 5 redis-cli -h {at} ping").stdout.strip() == "PONG", "PONG")
        types(a, path + detach, cwd="/root")
        assert b.types(f"timeout 5 redis-cli -h {at} ping").returncode != 0


def test_compose_with_a_control_plane(hosts: Hosts) -> None:
    """README.md's block and all of docs/image.md's, and the heads of the files."""
    a, b = hosts
    types(a, block("README.md", "docker build -t hostlane ."))
    assert head("control.yaml")[0] == "docker compose -f compose/control.yaml up -d --wait"
    types(b, lines_of(block("docs/image.md", "docker network create"), "host B"))
    types(a, block("docs/image.md", "docker compose -f compose/control.yaml up -d"))
    token = token_of(types(a, head("control.yaml")[1].replace("host-a", "host-b")))
    b.host_run("sh", "-c", f'printf %s "$0" > {CLONE}/compose/host-simple/token', token)
    types(b, block("docs/image.md", "HOST=host-b"))
    ping = block("docs/image.md", "docker run --rm --network none")
    eventually(lambda: a.types(f"timeout 20 {ping}").stdout.strip() == "PONG", "PONG", LONG)
    hold(a, "hostlane-sockets")
    types(a, block("docs/image.md", "docker build -t hostlane:2"))
    eventually(lambda: is_healthy(a, "hostlane-next-1"), "the next one", LONG)
    assert types(a, ping).strip() == "PONG"
    assert [state(a, name) for name in ("hostlane-proxy-1", "holder")] == ["running"] * 2
    types(a, f"{head('control.yaml')[1].replace('host-a', 'shop')} 2> /dev/null > compose/sidecar/token")
    types(a, head("sidecar.yaml")[0])
    eventually(lambda: is_healthy(a, "hostlane-sidecar-proxy-1"), "the sidecar", LONG)
    a.docker("rm", "--force", "holder")
    eventually(lambda: state(a, "hostlane-proxy-1") == "exited", "the end of the old one", LONG)


def test_the_hook_from_the_image(hosts: Hosts) -> None:
    """docs/containers.md, in the remark on its line."""
    a, _ = hosts
    _, line = block("docs/containers.md", "hostlane cdi install").splitlines()
    types(a, line.removeprefix("# from the image: "))
    for name in ("hostlane.json", "hostlane-hook"):
        a.host_run("test", "-s", f"/etc/cdi/{name}")


def test_three_control_servers(hosts: Hosts) -> None:
    """The head of compose/three-control-etcd.yaml; two of the three are a majority."""
    a, b = hosts
    number, init, copy, bring = head("three-control-etcd.yaml")
    assert number == "export NUMBER=1"
    for host, name in ((a, "host A"), (b, "host B")):
        types(host, lines_of(block("docs/image.md", "docker network create"), name))
    types(a, f"{number}\n{init}\n{copy}")
    ca = types(a, "base64 ca.tar")
    types(b, f"base64 --decode > ca.tar << END\n{ca}END")
    types(b, f"{number.replace('1', '2')}\n{bring}")
    for host, each in ((a, "1"), (b, "2")):
        types(host, last_of_head("three-control-etcd.yaml").replace("NUMBER=…", f"NUMBER={each}"))
    for host in (a, b):
        for name in ("hostlane-control-control-1", "hostlane-control-etcd-1"):
            eventually(lambda host=host, name=name: is_healthy(host, name), name, LONG)
    token = "hostlane token create --host host-a --config /etc/hostlane/control.yaml"
    assert token_of(types(b, f"docker exec hostlane-control-control-1 {token}"))


def last_of_head(name: str) -> str:
    """What stands behind `Then on each:`."""
    text = (ROOT / "compose" / name).read_text()
    [found] = re.findall(r"^# Then on each: (.*)", text, re.MULTILINE)
    return found
