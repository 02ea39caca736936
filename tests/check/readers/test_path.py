from __future__ import annotations

import pytest

from proxy.demo.lab import Lab
from tests.check.ground import Ground, findings, names, seen, unseen

pytestmark = [pytest.mark.netns, pytest.mark.failure(13)]
ONLY = ("path",)


def test_a_macvlan_is_the_way(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.add("container"), "10.77.0.3/24")
    container = ground.here.replace("here", "container")
    report = ground.check(container, ground.config(listen="10.77.0.3"))
    assert names(report) == set()
    assert "10.77.0.2 (host-b) through mv0 (macvlan)" in seen(report)
    assert "10.77.0.3 is an address of mv0" in seen(report)


def test_a_bridge_although_there_is_a_macvlan(lab: Lab, ground: Ground) -> None:
    """As Docker's default network and a macvlan in one container: the route decides, not the macvlan."""
    container = lab.a.container_netns
    ground.macvlan(lab.a.machine_netns, "mv1", container, "10.77.9.1/24", below="cable0")
    try:
        report = ground.check(container, ground.config(listen="10.77.9.1", peer=lab.b.address))
    finally:
        ground.ip(container, "link delete mv1")
    finding = findings(report)["bridged-route"]
    assert finding.level == "wrong"
    assert "eth0 (veth)" in finding.read
    assert "mv1 (macvlan, 10.77.9.1/24)" in finding.read
    assert finding.mend == f"ip route replace {lab.b.address} dev mv1"


def test_a_bridge_and_nothing_else(lab: Lab, ground: Ground) -> None:
    report = ground.check(lab.a.container_netns, ground.config(listen="172.17.0.2", peer=lab.b.address))
    assert findings(report)["bridge-on-the-way"].level == "note"
    report = ground.check(lab.a.machine_netns, ground.config(listen="172.17.0.1", peer="172.17.0.9"))
    assert "docker0 (bridge)" in findings(report)["bridge-on-the-way"].read


def test_no_way_at_all(ground: Ground) -> None:
    ground.ip(ground.here, "link set eth0 down")
    report = ground.check(ground.here, ground.config(listen="10.77.0.7"))
    assert names(report) >= {"no-route", "no-link-address"}


def test_a_cable_that_is_pulled(ground: Ground) -> None:
    ground.ip(ground.there, "link set eth0 down")
    report = ground.check(ground.here, ground.config())
    assert "eth0, which is down or has no carrier" in findings(report)["interface-down"].read


def test_a_name_that_does_not_resolve(ground: Ground) -> None:
    report = ground.check(ground.here, ground.config(peer="host-b.invalid"))
    assert "host-b.invalid does not resolve" in findings(report)["unresolved-peer"].read


def test_a_peer_that_is_this_host(ground: Ground) -> None:
    ground.ip(ground.here, "address add 10.77.0.5/24 dev eth0")
    report = ground.check(ground.here, ground.config(peer="10.77.0.5"))
    assert findings(report)["peer-is-here"].level == "note"


def test_a_host_cannot_reach_its_own_macvlan_child(ground: Ground) -> None:
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    pid = ground.live(container)
    config = ground.config(services={"redis": {"deliver": "tcp:10.77.0.3:6379"}})
    finding = findings(ground.check(ground.here, config))["unreachable-child"]
    assert finding.level == "wrong"
    assert finding.where == f"process {pid} (cat)"
    assert finding.read == (
        "10.77.0.3 is a macvlan child of eth0, and the way to it is eth0, its own parent; "
        "services.redis.deliver names it"
    )
    # What the finding says is true.
    assert not ground.reaches(ground.here, "10.77.0.3")
    # What it says to do helps.
    ground.run(ground.here, finding.mend)
    assert ground.reaches(ground.here, "10.77.0.3")
    report = ground.check(ground.here, config)
    assert "unreachable-child" not in findings(report)
    assert "10.77.0.3" in seen(report)


def test_a_child_that_nobody_asked_for_is_a_note(ground: Ground) -> None:
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    ground.live(container)
    assert findings(ground.check(ground.here))["unreachable-child"].level == "note"


def test_without_a_configuration_it_says_what_is_missing(ground: Ground) -> None:
    assert "ways to peers: no peers are known; give --config FILE" in unseen(ground.check(ground.here))


def test_an_address_that_is_not_leased_yet(ground: Ground) -> None:
    links = {"address": "auto", "segment": "lan"}
    control = {"servers": ["10.77.0.2:7601"], "state_dir": str(ground.folder / "state")}
    interfaces = {"hl0": {"parent": "eth0", "addresses": ["auto"]}}
    config = ground.config(links=links, control=control, interfaces=interfaces)
    assert not names(ground.check(ground.here, config)) & {"no-link-address"}
