from __future__ import annotations

import pytest

from tests.check.ground import Ground, findings, names

pytestmark = pytest.mark.netns
ONLY = ("sysctls", "segment")


@pytest.mark.parametrize(
    ("finding", "level", "planted"),
    [
        ("slow-start-after-idle", "note", "ipv4/tcp_slow_start_after_idle=1"),
        ("small-backlog", "wrong", "core/somaxconn=128"),
        ("late-keepalive", "note", "ipv4/tcp_keepalive_time=7200"),
    ],
)
def test_a_setting_and_what_mends_it(ground: Ground, finding: str, level: str, planted: str) -> None:
    path, _, value = planted.partition("=")
    ground.run(ground.here, f"echo {value} > /proc/sys/net/{path}")
    found = findings(ground.check(ground.here))[finding]
    assert found.level == level
    assert value in found.read
    ground.run(ground.here, found.mend)
    assert finding not in findings(ground.check(ground.here))


def test_two_interfaces_in_one_subnet(ground: Ground) -> None:
    """A macvlan beside its parent, both with an address in the same subnet."""
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.3/24")
    ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/conf/mv0/rp_filter")
    found = findings(ground.check(ground.here))
    assert found["strict-rp-filter"].where == "mv0"
    assert "10.77.0.0/24" in found["strict-rp-filter"].read
    assert found["arp-flux"].where == "eth0, mv0"
    for name in ("strict-rp-filter", "arp-flux"):
        ground.run(ground.here, found[name].mend.partition(" (")[0])
    assert names(ground.check(ground.here)) == set()


def test_a_macvlan_beside_its_parent(ground: Ground) -> None:
    """The parent has no address, and answers for the macvlan's: the peer sees two MACs."""
    ground.ip(ground.here, "address flush dev eth0")
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.1/24")
    found = findings(ground.check(ground.here))["arp-flux"]
    assert (found.where, found.level) == ("eth0", "wrong")
    peers = ground.config(listen="10.77.0.2", peer="10.77.0.1")
    assert names(ground.check(ground.there, peers)) == {"duplicate-peer-ip"}
    ground.run(ground.here, found.mend)
    assert names(ground.check(ground.here)) == set()
    assert names(ground.check(ground.there, peers)) == set()
