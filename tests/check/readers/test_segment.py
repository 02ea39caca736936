from __future__ import annotations

import pytest

from proxy.demo import netns
from tests.check.ground import Ground, check, findings, names, seen, unseen
from tests.tools.nobody import as_nobody

pytestmark = [pytest.mark.netns, pytest.mark.failure(13)]
ONLY = ("segment",)

MAC = "02:00:00:00:77:01"


def third(ground: Ground) -> str:
    """There becomes a switch, and 10.77.0.2 is the address of one machine at it, 10.77.0.3 that of another."""
    ground.ip(
        ground.there, "address del 10.77.0.2/24 dev eth0", "link add br0 type bridge", "link set br0 up",
        "link set eth0 master br0",
    )  # fmt: skip
    for number in (2, 3):
        name = ground.add(f"m{number}")
        ground.cable(ground.there, f"p{number}", name, "eth0")
        ground.ip(ground.there, f"link set p{number} master br0")
        ground.ip(name, f"address add 10.77.0.{number}/24 dev eth0")
    return name


def test_every_address_once(ground: Ground) -> None:
    report = ground.check(ground.here, ground.config())
    assert "nobody else on eth0 has an address of this host or of another peer" in seen(report)
    assert names(report) == set()


def test_another_machine_has_our_address(ground: Ground) -> None:
    ground.ip(ground.there, "address add 10.77.0.1/24 dev eth0")
    finding = findings(ground.check(ground.here, ground.config()))["duplicate-ip"]
    assert (finding.level, finding.where) == ("wrong", "10.77.0.1 on eth0")
    assert "answers for 10.77.0.1, which is this host's" in finding.read


def test_a_macvlan_on_another_machine_has_our_address(ground: Ground) -> None:
    """Two hosts of one macvlan network that give out the same addresses."""
    for parent, role in ((ground.here, "one"), (ground.there, "two")):
        ground.macvlan(parent, "mv0", ground.add(role), "10.77.0.9/24")
    one = ground.here.replace("here", "one")
    assert "duplicate-ip" in findings(ground.check(one, ground.config(listen="10.77.0.9")))


def test_a_peer_has_our_mac(ground: Ground) -> None:
    for name in (ground.here, ground.there):
        ground.ip(name, f"link set eth0 address {MAC}")
    finding = findings(ground.check(ground.here, ground.config()))["duplicate-mac"]
    assert finding.read == f"peer host-b, 10.77.0.2, is at {MAC}, the MAC of this host's eth0"


def test_a_peer_has_the_mac_of_our_macvlan(ground: Ground) -> None:
    """It would not even hear us: frames that come from its own MAC are its own."""
    for name, number in ((ground.here, 3), (ground.there, 4)):
        ground.macvlan(name, "mv0", name, f"10.77.7.{number}/24")
        ground.ip(name, f"link set mv0 address {MAC}")
    finding = findings(ground.check(ground.here, ground.config(listen="10.77.7.3", peer="10.77.7.4")))["duplicate-mac"]
    assert "the MAC of this host's mv0" in finding.read


def test_two_machines_have_a_peers_address(ground: Ground) -> None:
    ground.ip(third(ground), "address add 10.77.0.2/24 dev eth0")
    finding = findings(ground.check(ground.here, ground.config()))["duplicate-peer-ip"]
    assert finding.read.endswith("both answer for 10.77.0.2")


def test_two_peers_have_one_mac(ground: Ground) -> None:
    ground.ip(third(ground), f"link set eth0 address {MAC}")
    ground.ip(ground.here.replace("here", "m2"), f"link set eth0 address {MAC}")
    peers = {f"host-{number}": {"address": f"10.77.0.{number}:7600"} for number in (2, 3)}
    finding = findings(ground.check(ground.here, ground.config(peers=peers)))["duplicate-peer-mac"]
    assert finding.where == "peer host-2, peer host-3"


def test_nobody_has_a_peers_address(ground: Ground) -> None:
    ground.ip(ground.there, "address del 10.77.0.2/24 dev eth0")
    finding = findings(ground.check(ground.here, ground.config()))["silent-peer"]
    assert (finding.level, finding.where) == ("wrong", "peer host-b")
    assert "the segment of eth0 answers ARP for 10.77.0.2" in finding.read


def test_a_peer_behind_a_router_is_not_asked_for(ground: Ground) -> None:
    ground.ip(ground.here, "route add 10.66.0.0/24 via 10.77.0.2")
    assert "silent-peer" not in findings(ground.check(ground.here, ground.config(peer="10.66.0.9")))


@pytest.mark.nobody
def test_without_privilege(ground: Ground) -> None:
    report = check(netns.inside(ground.here, as_nobody()), ground.readable(ground.config()))
    assert "addresses that exist twice, by ARP probes: no permission; ask as root" in unseen(report)


@pytest.mark.nobody
def test_without_privilege_what_the_kernel_remembers(ground: Ground) -> None:
    ground.ip(third(ground), f"link set eth0 address {MAC}")
    ground.ip(ground.here.replace("here", "m2"), f"link set eth0 address {MAC}")
    peers = {f"host-{number}": {"address": f"10.77.0.{number}:7600"} for number in (2, 3)}
    for number in (2, 3):
        ground.ip(ground.here, f"neighbour replace 10.77.0.{number} lladdr {MAC} dev eth0 nud reachable")
    report = check(netns.inside(ground.here, as_nobody()), ground.readable(ground.config(peers=peers)))
    assert "duplicate-peer-mac" in names(report)
