from __future__ import annotations

from proxy.netdev.observe.networkstate import Ipv4Settings, effective
from tests.netdev.picture import ETH0, HL0, VLAN, changed, world


def test_children_are_those_of_this_namespace() -> None:
    veth = changed(HL0, index=7, name="veth0", kind="veth")
    elsewhere = changed(HL0, index=8, name="mv8", parent_netns=0)
    found = world(ETH0, HL0, VLAN, veth, elsewhere)
    assert found.children(ETH0) == [HL0, VLAN]
    assert found.children(HL0) == []


def test_the_greater_of_all_and_the_interfaces_own_counts() -> None:
    settings = {"all": Ipv4Settings(0, 2, 1), "eth0": Ipv4Settings(1, 0, 2)}
    assert effective(settings, "eth0") == Ipv4Settings(1, 2, 2)
    assert effective(settings, "eth1") is None
    assert effective({}, "eth0") is None
