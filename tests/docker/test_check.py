"""``hostlane check`` on real engines: clean for what Hostlane has set up; else it finds what an engine costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from tests.docker.conftest import Hosts
from tests.docker.engines import EngineHost
from tests.docker.traffic import LABEL, Traffic, start_server

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def check(host: EngineHost, config: dict[str, Any], *, inside: str = "") -> dict[str, set[str]]:
    """What root on a host finds, or who is in a container's network: names of findings, by their level."""
    file = host.files / "check.yaml"
    file.write_text(json.dumps(config))
    argv = [*HOSTLANE, "check", "--config", str(file), "--json"]
    if inside:
        pid = host.docker("inspect", "--format={{.State.Pid}}", inside)
        argv = ["nsenter", f"--target={pid}", "--net", *argv]
    done = subprocess.run(host.inside(argv), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, set[str]] = {"wrong": set(), "note": set()}
    for group in json.loads(done.stdout)["groups"]:
        for finding in group["findings"]:
            found[finding["level"]].add(finding["name"])
    return found


@pytest.mark.essential
def test_nothing_is_wrong_with_what_we_have_set_up(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    Traffic(a, LABEL).flows()
    for host in empty:
        ours = json.loads((host.files / "host.yaml").read_text())
        ours |= {"run_dir": f"{host.sockets}/run", "socket_dir": f"{host.sockets}/services"}
        assert check(host, ours)["wrong"] == set()


@pytest.fixture(scope="module")
def other() -> Iterator[EngineHost]:
    """A host whose engine is as it comes, with bridge, NAT, rules and its userland proxy. Its peer is at 10.77.0.2."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        made = EngineHost(lab.a, Path(tempfile.mkdtemp(prefix="hl-check-")) / "a", network=())
        stack.callback(shutil.rmtree, made.files.parent.parent, ignore_errors=True)
        stack.callback(made.close)
        yield made


def config(**more: Any) -> dict[str, Any]:
    """Of a proxy whose links are to go over 10.77.0.1, if `more` says nothing else."""
    links = {"listen": "10.77.0.1:7600", "security": "none"}
    return {"host": "host-a", "links": links, "peers": {"host-b": {"address": "10.77.0.2:7600"}}, **more}


@pytest.mark.essential
def test_an_engine_beside_the_links_costs_connection_tracking(other: EngineHost) -> None:
    """Its NAT rules are in the namespace that the links go through."""
    found = check(other, config())
    assert "tracked-links" in found["wrong"]
    assert "rules-on-links" in found["note"]


def test_the_bridge_between_a_container_and_its_peer(other: EngineHost) -> None:
    other.run("bridged", ["sleep", "infinity"], "--network=bridge")
    found = check(other, config(links={"listen": "172.17.0.2:7600", "security": "none"}), inside="bridged")
    assert "bridge-on-the-way" in found["note"]


def test_the_bridge_beside_a_macvlan(other: EngineHost) -> None:
    """The engine gives the default route to the network that comes first in the alphabet."""
    other.docker("network", "create", "--driver=macvlan", "--opt=parent=cable0", "--subnet=10.79.0.0/24", "side")
    other.run("both", ["sleep", "infinity"], "--network=bridge")
    other.docker("network", "connect", "--ip=10.79.0.9", "side", "both")
    found = check(other, config(links={"listen": "10.79.0.9:7600", "security": "none"}), inside="both")
    other.docker("rm", "--force", "both")
    other.docker("network", "rm", "side")  # the engine lets an interface have one such network
    assert "bridged-route" in found["wrong"]


@pytest.mark.essential
def test_the_engines_names_cost_connection_tracking(other: EngineHost) -> None:
    """Every network but the default one has them, a macvlan too; seen from inside, and by root on the host."""
    other.docker("network", "create", "--driver=macvlan", "--opt=parent=cable0", "--subnet=10.77.0.0/24",
                 "--ip-range=10.77.0.128/26", "lane")  # fmt: skip
    other.run("named", ["sleep", "infinity"], "--network=lane", "--ip=10.77.0.9")
    wanted = config(links={"listen": "10.77.0.9:7600", "security": "none"})
    assert "docker-dns-conntrack" in check(other, wanted, inside="named")["wrong"]
    assert "docker-dns-conntrack" in check(other, config())["wrong"]


def test_the_engines_userland_proxy(other: EngineHost) -> None:
    """Wrong where a service is delivered through it, a note otherwise."""
    other.run("published", ["sleep", "infinity"], "--network=bridge", "--publish=8080:80")
    assert "docker-proxy" in check(other, config())["note"]
    delivered = config(services={"web": {"deliver": "tcp:127.0.0.1:8080"}})
    assert "docker-proxy" in check(other, delivered)["wrong"]


def test_a_macvlan_on_a_bridge_of_the_engine(other: EngineHost) -> None:
    """Frames for it pass the host's rules, where the machine has them called for bridges."""
    other.docker("network", "create", "--opt=com.docker.network.bridge.name=lane0", "bridged")
    for command in ("ip link add mv1 link lane0 type macvlan mode bridge", "ip addr add 10.81.0.1/24 dev mv1",
                    "ip link set mv1 up"):  # fmt: skip
        other.host_run(*command.split())
    called = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
    found = check(other, config(links={"listen": "10.81.0.1:7600", "security": "none"}))
    assert ("bridge-parent-rules" in found["wrong"]) == called
