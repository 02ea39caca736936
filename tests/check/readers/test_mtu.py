from __future__ import annotations

import pytest

from tests.check.ground import Ground, findings, names, seen, unseen

pytestmark = [pytest.mark.netns, pytest.mark.failure(14)]
ONLY = ("mtu",)


def far(ground: Ground) -> None:
    """10.77.0.2 becomes a router; the peer is behind it, at 10.66.0.2, over a cable that takes 1400 bytes."""
    peer = ground.add("peer")
    ground.cable(ground.there, "eth1", peer, "eth0")
    ground.ip(ground.there, "address add 10.66.0.1/24 dev eth1", "link set eth1 mtu 1400")
    ground.ip(peer, "address add 10.66.0.2/24 dev eth0", "link set eth0 mtu 1400", "route add default via 10.66.0.1")
    ground.run(ground.there, "echo 1 > /proc/sys/net/ipv4/ip_forward")
    ground.ip(ground.here, "route add 10.66.0.0/24 via 10.77.0.2")


def test_all_of_it_passes(ground: Ground) -> None:
    report = ground.check(ground.here, ground.config())
    assert "10.77.0.2 (host-b): 1500 bytes pass, as eth0 allows" in seen(report)


def test_a_black_hole_on_the_segment(ground: Ground) -> None:
    """One interface of the segment has a smaller MTU, and leaves room for a VLAN tag of 4 bytes, as cables do."""
    ground.ip(ground.there, "link set eth0 mtu 1380")
    finding = findings(ground.check(ground.here, ground.config()))["mtu-black-hole"]
    assert finding.level == "wrong"
    assert "packets to 10.77.0.2 above 1384 bytes vanish" in finding.read
    ground.run(ground.here, finding.mend.partition(" here")[0])
    assert "mtu-black-hole" not in findings(ground.check(ground.here, ground.config()))


def test_a_black_hole_behind_a_router(ground: Ground) -> None:
    """The router would say so, but a firewall takes its word away."""
    far(ground)
    ground.nft(
        ground.here,
        "table ip f { chain i { type filter hook prerouting priority 0; icmp type destination-unreachable drop; }; }",
    )
    finding = findings(ground.check(ground.here, ground.config(peer="10.66.0.2")))["mtu-black-hole"]
    assert finding.measured == "1400 bytes were answered, 1401 were not, three times"


def test_a_router_that_says_so(ground: Ground) -> None:
    far(ground)
    report = ground.check(ground.here, ground.config(peer="10.66.0.2"))
    finding = findings(report)["smaller-path-mtu"]
    assert finding.level == "note"
    assert "10.77.0.2 passes on 1400 bytes" in finding.read
    assert finding.measured == "1400 bytes were answered"
    assert names(report) == set()


def test_ipv6(ground: Ground) -> None:
    for name, number in ((ground.here, 1), (ground.there, 2)):
        ground.ip(name, f"address add fd00::{number}/64 dev eth0 nodad")
    ground.ip(ground.there, "link set eth0 mtu 1380")
    config = ground.config(listen="[fd00::1]", peer="[fd00::2]")
    assert "above 1384 bytes vanish" in findings(ground.check(ground.here, config))["mtu-black-hole"].read


def test_a_peer_that_does_not_answer(ground: Ground) -> None:
    ground.run(ground.there, "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
    report = ground.check(ground.here, ground.config())
    assert "path MTU to 10.77.0.2 (host-b): it answers no echo requests" in unseen(report)
    assert names(report) == set()
