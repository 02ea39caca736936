from __future__ import annotations

from tests.netdev.picture import ETH0, HL0, VLAN, changed, world


def test_children_are_those_of_this_namespace() -> None:
    veth = changed(HL0, index=7, name="veth0", kind="veth")
    elsewhere = changed(HL0, index=8, name="mv8", parent_netns=0)
    found = world(ETH0, HL0, VLAN, veth, elsewhere)
    assert found.children(ETH0) == [HL0, VLAN]
    assert found.children(HL0) == []
