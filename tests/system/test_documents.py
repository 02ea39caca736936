"""What documents have people type, typed as it stands, with the paths that they name; what is printed has the shape
that they show. tests/rules/test_typed.py sees that no block is left out. What is typed where a control server runs is
in test_documents_control.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proxy.demo.lab import Lab
from tests.tools.documents import ROOT, block, shape, typed
from tests.tools.machine import Going, Machine, redis_server
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.redis, pytest.mark.jq]

CONFIG = "/etc/hostlane/hostlane.yaml"
SERVED = "proxy ready"


@pytest.fixture
def a(lab: Lab) -> Iterator[Machine]:
    with Machine(lab.a) as machine:
        yield machine


@pytest.fixture
def b(lab: Lab) -> Iterator[Machine]:
    with Machine(lab.b) as machine:
        yield machine


@pytest.fixture
def redis(b: Machine) -> Iterator[None]:
    """Redis on host B, where configs/host-b.yaml has it."""
    with redis_server(b):
        yield


@pytest.fixture
def mesh(a: Machine, b: Machine, redis: None) -> Iterator[None]:
    """README's two hosts, each as README has it typed."""
    lines = block("README.md", "python3 -m venv").splitlines()
    assert lines[1] == "hostlane validate configs/host-a.yaml"
    with ExitStack() as stack:
        for machine, host in ((b, "host-b"), (a, "host-a")):
            machine.does(lines[1].replace("host-a", host))
            stack.enter_context(machine.doing(lines[2].replace("host-a", host)))
        yield


def test_two_hosts(a: Machine, mesh: None) -> None:
    assert a.does(block("README.md", "redis-cli")) == "PONG\n"


def test_the_table_of_commands(a: Machine, mesh: None) -> None:
    """Those of README that ask and leave nothing open."""
    assert a.does(block("README.md", "redis-cli")) == "PONG\n"
    text = (ROOT / "README.md").read_text().partition("\n## Command line\n")[2].partition("\n## ")[0]
    cells = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| `hostlane ")]
    typed = {command for cell in cells for command in re.findall(r"`(hostlane [a-z]+)`", cell)}
    asking = typed - {f"hostlane {word}" for word in ("control", "demo", "door", "drain", "token")}
    assert len(asking) > 10
    for command in sorted(asking):
        done = a.type("hostlane top --count 1" if command == "hostlane top" else command)
        assert done.code in (0, 1), done
        assert command == "hostlane support" or not done.err, done


@pytest.fixture
def stream(a: Machine, mesh: None) -> Iterator[None]:
    """A caller on host A that stays."""
    with a.doing("redis-cli -s /run/hostlane-services/redis.sock subscribe x", "subscribe"):
        yield


def test_what_asks(a: Machine, stream: None) -> None:
    """docs/cli.md, docs/edges.md, docs/metrics.md."""
    hosts, streams = block("docs/cli.md", "hostlane hosts --json").splitlines()
    assert a.does(hosts) == ""
    assert json.loads(a.does(streams)) == {"service": "redis", "streams": 1}
    header, row = a.does(block("docs/edges.md", "hostlane edges")).splitlines()
    assert row.split()[:5] == ["uid", "0", "host-a", "redis", "host-b"]
    rows = re.findall(r"^\| ([a-z, ]+) \|", (ROOT / "docs" / "edges.md").read_text(), re.MULTILINE)
    assert re.split("  +", header.strip()) == [name for each in rows[1:] for name in each.split(", ")]
    [curl] = re.findall(r"`(curl [^`]*)`", (ROOT / "docs" / "metrics.md").read_text())
    assert "hostlane_streams_open{" in a.does(curl)


def test_tap(a: Machine, mesh: None) -> None:
    """docs/cli.md."""
    everything, failed, of_one, as_json = block("docs/cli.md", "hostlane tap").splitlines()
    with a.doing(everything, "time") as shown, a.doing(failed, "time") as bad, a.doing(of_one, "time") as others:
        a.does(block("README.md", "redis-cli"))
        eventually(lambda: "finished" in shown.text(), "the end of a stream")
        for each in (bad, others):
            assert len(each.log) == 1, each.text()
    # jq says nothing until it has a stream that was so slow.
    with a.doing(as_json.replace("> 50", "> -1").replace("jq -c", "jq --unbuffered -c"), "") as told:

        def call() -> bool:
            a.does(block("README.md", "redis-cli"))
            return bool(told.log)

        eventually(call, "a line")
        assert list(told.log[0]) == ["id", "peer", "open_ms", "reason"]


def with_more(file: str, *sections: str) -> str:
    """A configuration with more top-level sections."""
    return "".join([(ROOT / "configs" / file).read_text(), *sections])


@contextmanager
def installed(machine: Machine, text: str) -> Iterator[Going]:
    """A proxy with the configuration that the unit has."""
    machine.write(CONFIG, text)
    with machine.doing(f"hostlane proxy --config {CONFIG}") as proxy:
        yield proxy


def test_reload_drain_and_takeover(a: Machine) -> None:
    """docs/upgrade.md, docs/sockets.md."""
    before = with_more("host-a.yaml")
    with installed(a, before) as old:
        two = "services: [redis]}\n  host-c: {address: 10.77.0.3:7600}\n"
        changed = before.replace("10.77.0.2:7600", "10.77.0.9:7600").replace("services: [redis]}\n", two)
        a.write(CONFIG, changed + "limits: {stop_timeout: 60s}\n")
        said = a.does(block("docs/upgrade.md", "hostlane validate"))
        assert said.splitlines()[-3:] == block("docs/upgrade.md", "peers.host-b.address").splitlines()
        a.does("sed 's,^run_dir.*,run_dir: /run/second,; s,7600,7700,' configs/host-a.yaml > second.yaml")
        second = a.type("hostlane proxy --config second.yaml")
        assert second.code == 2
        [refusal] = block("docs/sockets.md", "cannot listen on").splitlines()
        assert shape(refusal)[0] in shape(second.err)[0]
        _, takeover = block("docs/upgrade.md", "/opt/hostlane/bin/pip").splitlines()
        with a.doing(takeover):
            assert old.wait() == 0
            drains = block("docs/upgrade.md", "hostlane drain").splitlines()
            a.does(drains[0])
    for drain in drains[1:]:
        with a.doing(f"hostlane proxy --config {CONFIG}") as proxy:
            a.does(drain)
            assert proxy.wait() == 0


def test_sockets(a: Machine, mesh: None) -> None:
    """docs/sockets.md: what is created."""
    for path, mode in (
        ("/run/hostlane-services", 755), ("/run/hostlane-services/redis.sock", 666), ("/run/hostlane", 700),
        ("/run/hostlane-services/.redis.sock.lock", 600), ("/run/hostlane/admin.sock", 600),
        ("/run/hostlane/next.sock", 600),
    ):  # fmt: skip
        assert a.does(f"stat --format %a {path}") == f"{mode}\n", path
    assert "/run/hostlane-services/.redis.sock.new" in a.does("ss -xl")


@pytest.mark.prometheus
def test_monitoring_and_health(a: Machine, b: Machine, mesh: None) -> None:
    """docs/operations.md, docs/health.md, docs/metrics.md."""
    socket, scraped = block("docs/operations.md", "telemetry:"), block("docs/metrics.md", "telemetry:")
    a.does("groupadd monitoring")
    a.write("more.yaml", with_more("host-a.yaml", socket, scraped.partition("\n")[2]))
    with a.doing("hostlane proxy --takeover --config more.yaml"):
        status, health, curl = block("docs/operations.md", "hostlane status --socket").splitlines()
        assert json.loads(a.does(status))["host"] == "host-a"
        assert a.does(health)
        assert json.loads(a.does(curl))[0]["peer"] == "host-b"
        assert a.does("stat --format '%G %a' /run/hostlane-telemetry/status.sock") == "monitoring 660\n"
        text = (ROOT / "docs" / "health.md").read_text()
        for question in ("alive", "ready", "mesh"):
            assert f"`GET /{question}`" in text
            answer = a.does(f"curl --silent --unix-socket /run/hostlane/admin.sock http://hostlane/{question}")
            assert json.loads(answer) == {"ok": True, "problems": []}
        [probe] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
        a.does(shlex.join(json.loads(probe)))
        [other] = re.findall(r"`test: \[CMD, ([^]`]*)\]`", text)
        a.does(other.replace(",", "").replace("/run/other/", "/run/hostlane/"))
        b.does("curl --silent --fail --resolve host-a.example:9600:10.77.0.1 http://host-a.example:9600/metrics")
        a.write("prometheus.yml", block("docs/metrics.md", "scrape_configs:"))
        a.does("promtool check config prometheus.yml")


def test_access_log_and_page(a: Machine, mesh: None) -> None:
    """docs/access-log.md, docs/page.md."""
    log = block("docs/access-log.md", "access:")
    a.does("mkdir /var/log/hostlane")
    page = block("docs/page.md", "telemetry:")
    a.write("more.yaml", with_more("host-a.yaml", log.replace("slower_than: 50ms", "slower_than: 1ms"), page))
    with a.doing("hostlane proxy --takeover --config more.yaml") as proxy:
        assert "<title>" in a.does("curl --silent --fail http://127.0.0.1:7690/")
        shown = json.loads(block("docs/access-log.md", "{"))

        def logged() -> bool:
            a.does(block("README.md", "redis-cli"))
            return bool(a.read("/var/log/hostlane/access.log"))

        eventually(logged, "a line")
        assert list(json.loads(a.read("/var/log/hostlane/access.log").splitlines()[0])) == list(shown)
        # As logrotate does. Nothing is written then, and the old file is let go of all the same.
        a.does("mv /var/log/hostlane/access.log /var/log/hostlane/access.log.1")
        os.killpg(proxy.pid, signal.SIGHUP)
        eventually(lambda: a.type("stat --format %a /var/log/hostlane/access.log").out == "640\n", "a new file")


def test_certificates(a: Machine, b: Machine, redis: None) -> None:
    """docs/security.md: a mesh without control plane, and its certificates."""
    a.does("mkdir /etc/hostlane && cd /etc/hostlane && " + block("docs/security.md", "hostlane certificates new"))
    tls = block("docs/security.md", "mesh: hostlane")
    for machine, host in ((b, "host-b"), (a, "host-a")):
        for file in ("ca.pem", f"{host}.pem", f"{host}.key"):
            if machine is b:
                machine.write(f"/etc/hostlane/{file}", a.read(f"/etc/hostlane/{file}"))
    configs = {}
    for host, number in (("host-a", "1"), ("host-b", "2")):
        text = tls.replace("host-a", host).replace("10.77.0.1", f"10.77.0.{number}")
        configs[host] = re.sub(r"^links:\n(  .*\n)+", text, with_more(f"{host}.yaml"), flags=re.MULTILINE)
    b.does("chmod 600 /etc/hostlane/host-b.key")
    with installed(b, configs["host-b"]), installed(a, configs["host-a"]):
        assert a.does(block("README.md", "redis-cli")) == "PONG\n"


def test_samples(a: Machine, mesh: None) -> None:
    """docs/building.md, docs/containers.md."""
    version = block("docs/building.md", "$ hostlane --version")
    for sample in (version, block("docs/containers.md", "$ hostlane services --hosts")):
        [shown] = typed(sample)
        assert set(shape(shown.printed)) <= set(shape(a.does(shown.line)))


def test_explaining(a: Machine, mesh: None) -> None:
    """docs/check.md, docs/pool.md."""
    assert a.type("cd configs; " + block("docs/check.md", "hostlane check")).code in (0, 1)
    here, other = block("docs/check.md", "hostlane explain redis").splitlines()
    assert "directly from here to host-b, 10.77.0.2" in a.does(here)
    assert "to host-b, 10.78.0.2" in a.does(other.replace("4711", "$$"))
    a.does(block("docs/pool.md", "python -m benchmarks.arrivals"))


def test_interfaces() -> None:
    """docs/network.md, without a VLAN (that is tests/vm/vlan.py), which not every kernel has."""
    interfaces = block("docs/network.md", "interfaces:\n  hl0: {parent: eth0, vlan").replace("vlan: 100, ", "")
    plan, apply, status, watch, remove = block("docs/network.md", "hostlane net plan").splitlines()
    by_pid = block("docs/network.md", "hostlane net attach").splitlines()[2]
    with Lab(interfaces=False) as lab, Machine(lab.a) as a:
        a.does("ip link set cable0 down name eth0; ip link set eth0 up")
        a.write("host-a.yaml", with_more("host-a.yaml", interfaces))
        planned = a.does(plan)
        assert "hl0: create macvlan on eth0" in planned
        assert a.does(apply) == planned
        assert a.does(apply) == "nothing to change\n"
        a.does(status)
        with a.doing(watch, "interfaces are as configured"):
            pass
        with a.doing("echo up; exec unshare --net sleep infinity", "up") as sleeper:
            eventually(lambda: in_another_network(sleeper.pid), "its own network")
            assert a.does(by_pid.replace("4711", str(sleeper.pid))).endswith("eth1: set up\n")
        assert a.does(remove) == "hl0: delete\n"
        assert a.type("ip link show hl0").code != 0


def in_another_network(pid: int) -> bool:
    """Than the lab's host it was started on."""
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def test_cdi(a: Machine) -> None:
    """docs/containers.md."""
    a.does(block("docs/containers.md", "hostlane cdi install"))
    assert a.does("ls /etc/cdi").split() == ["hostlane-hook", "hostlane.json"]
