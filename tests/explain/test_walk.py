"""The layers on the way, in networks as Docker and others build them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from proxy.explain.account import PathLayer
from proxy.explain.walk import walk
from tests.check.ground import Ground
from tests.tools.nobody import as_nobody

pytestmark = pytest.mark.netns


def walked(namespace: str, address: str) -> tuple[PathLayer, ...]:
    with netns.entered(namespace):
        return walk(address)


def names(layers: tuple[PathLayer, ...]) -> list[str]:
    return [layer.name for layer in layers]


@pytest.fixture(scope="module")
def machine(lab: Lab) -> LabHost:
    """Host A of the lab with a process in its machine's namespace, where the way out of its container leads."""
    argv = netns.inside(lab.a.machine_netns, ["sh", "-c", "echo; exec cat"])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    lab.a.processes.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return lab.a


def test_a_container_of_docker(lab: Lab, machine: LabHost) -> None:
    found = walked(machine.container_netns, lab.b.machine_address)
    assert names(found)[:6] == ["netfilter", "veth eth0", "veth veth0", "bridge docker0", "netfilter", "veth cable0"]
    rules = found[4]
    assert rules.read.startswith("8 rules in 3 chains at prerouting, forward, postrouting; ")
    assert rules.costs == "the rules and NAT and connection tracking"
    assert rules.where.endswith("(cat)")
    assert found[1].read == "172.17.0.2/16, router 172.17.0.1"


def test_a_macvlan(machine: LabHost, lab: Lab) -> None:
    found = walked(machine.netns, lab.b.address)
    assert names(found) == ["netfilter", "macvlan mv0", "parent cable0"]
    assert [layer.costs for layer in found] == [None, None, None]
    assert found[0].read == "no rules at output, postrouting"
    assert found[2].where == "here"


def test_a_macvlan_of_a_container(ground: Ground) -> None:
    """Its parent is in the namespace of the host, where a process shows the way."""
    ground.live(ground.there)
    ground.macvlan(ground.there, "mv0", ground.here, "10.77.9.1/24")
    found = walked(ground.here, "10.77.9.2")
    assert names(found) == ["netfilter", "macvlan mv0", "parent eth0"]
    assert found[2].where.endswith("(cat)")


def test_a_pulled_cable(ground: Ground) -> None:
    ground.ip(ground.there, "link set eth0 down")
    assert walked(ground.here, "10.77.0.2")[1].read == "no carrier: nothing passes; 10.77.0.1/24"


def test_a_bridge_of_this_namespace(machine: LabHost) -> None:
    found = walked(machine.machine_netns, "172.17.0.2")
    assert names(found) == ["netfilter", "bridge docker0"]


def test_two_routers_on_this_machine(ground: Ground) -> None:
    peer = ground.add("peer")
    ground.cable(ground.there, "eth1", peer, "eth0")
    ground.ip(ground.there, "address add 10.66.0.1/24 dev eth1")
    ground.ip(peer, "address add 10.66.0.2/24 dev eth0")
    ground.ip(ground.here, "route add default via 10.77.0.2")
    ground.live(ground.there)
    ground.live(peer)
    assert names(walked(ground.here, "10.66.0.2")) == [
        "netfilter", "veth eth0", "veth eth0", "netfilter", "veth eth1", "veth eth0",
    ]  # fmt: skip


def test_a_cable_that_leads_where_nobody_is(ground: Ground) -> None:
    last = walked(ground.here, "10.77.0.2")[-1]
    assert (last.name, last.seen) == ("other end", False)
    assert "nobody runs there" in last.read


def test_no_way(ground: Ground) -> None:
    assert walked(ground.here, "10.1.1.1") == (
        PathLayer(name="no route", read="there is none to 10.1.1.1", where="here", seen=False),
    )


def test_loopback(ground: Ground) -> None:
    assert names(walked(ground.here, "127.0.0.1")) == ["netfilter", "interface lo"]


@pytest.mark.nobody
def test_without_privilege(ground: Ground) -> None:
    ground.live(ground.there)
    code = "from proxy.explain.walk import walk\nfor layer in walk('10.77.0.2'): print(layer.name, layer.read)"
    argv = netns.inside(ground.here, [*as_nobody(), sys.executable, "-P", "-c", code])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.splitlines() == [
        "netfilter nftables rules: no permission; ask as root",
        "veth eth0 10.77.0.1/24",
        "other end of the veth, in another namespace; only root may follow it",
    ]
