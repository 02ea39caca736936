from __future__ import annotations

from proxy.netdev.observe.records import Address, NetInterface, NetSnapshot

LO, ETH0 = NetInterface(index=1, name="lo"), NetInterface(index=2, name="eth0")
SEEN = NetSnapshot(interfaces=(LO, ETH0), addresses=(Address(interface=2, address="10.9.0.1", prefix=24),))


def test_interfaces_are_found_by_name_and_index() -> None:
    assert (SEEN.named("eth0"), SEEN.named("eth1")) == (ETH0, None)
    assert (SEEN.at(1), SEEN.at(3), SEEN.at(None)) == (LO, None, None)


def test_addresses() -> None:
    assert [str(address) for address in SEEN.addresses_of(2)] == ["10.9.0.1/24"]
    assert SEEN.addresses_of(1) == []


def test_a_parent_in_another_namespace_is_none_of_this() -> None:
    child = NetInterface(index=3, name="mv0", parent=2)
    assert SEEN.parent_of(child) == ETH0
    assert SEEN.parent_of(NetInterface(index=3, name="mv0", parent=2, parent_netns=0)) is None
    assert SEEN.parent_of(LO) is None
