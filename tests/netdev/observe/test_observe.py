"""What netlink says, against what iproute2 made; virtual functions, which no namespace has, from recorded messages."""

from __future__ import annotations

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.observe import observe
from proxy.netdev.observe.observe import NetInterface, NetSnapshot, VirtualFunction


def ip(space: str, *commands: str) -> None:
    for command in commands:
        netns.run(["ip", "-n", space, *command.split()])


def look(space: str) -> NetSnapshot:
    with netns.entered(space):
        return observe.snapshot()


def found(snapshot: NetSnapshot, name: str) -> NetInterface:
    interface = snapshot.named(name)
    assert interface is not None
    return interface


@pytest.mark.netns
@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_a_macvlan(space: str, mode: str) -> None:
    ip(space, f"link add mv0 link eth0 address 02:00:00:00:00:01 mtu 1400 type macvlan mode {mode}")
    ip(space, "link set mv0 alias hostlane:a:mv0", "link set mv0 up", "addr add 10.9.0.1/24 dev mv0")
    seen = look(space)
    parent, mv0 = found(seen, "eth0"), found(seen, "mv0")
    assert (mv0.kind, mv0.macvlan_mode, mv0.parent, mv0.mtu, mv0.alias) == (
        "macvlan", mode, parent.index, 1400, "hostlane:a:mv0",
    )  # fmt: skip
    assert (mv0.up, mv0.carrier, mv0.operstate, mv0.vfs) == (True, True, "up", ())
    assert ("02:00:00:00:00:01" in parent.unicast) is (mode != "passthru")
    assert [str(address) for address in seen.addresses_of(mv0.index) if address.scope == 0] == ["10.9.0.1/24"]
    assert ("10.9.0.0/24", "10.9.0.1") in {(r.to, r.source) for r in seen.routes if r.interface == mv0.index}


@pytest.mark.netns
def test_kinds_masters_and_links_that_are_down(space: str) -> None:
    ip(space, "link add br0 type bridge", "link set eth0 master br0", "link set eth0 down")
    seen = look(space)
    assert {i.name: i.kind for i in seen.interfaces} == {"lo": "", "eth0": "veth", "cable": "veth", "br0": "bridge"}
    eth0 = found(seen, "eth0")
    assert (eth0.up, eth0.carrier, eth0.operstate) == (False, False, "down")
    assert seen.at(eth0.master) == found(seen, "br0")
    assert seen.at(None) is None
    assert seen.at(12345) is None
    assert seen.named("eth1") is None


@pytest.mark.netns
def test_a_parent_in_another_namespace(space: str) -> None:
    ip(space, "link add mv0 link eth0 type macvlan mode bridge")
    other = f"{space}-other"
    netns.add(other)
    try:
        ip(space, f"link set mv0 netns {other}")
        moved = found(look(other), "mv0")
        assert moved.parent_netns is not None
        ip(other, "link set mv0 up")
        assert moved.mac in found(look(space), "eth0").unicast, "a child counts wherever it is"
    finally:
        netns.delete(other)


@pytest.mark.netns
def test_addresses_of_both_versions(space: str) -> None:
    ip(space, "addr add 10.9.0.1/24 dev eth0", "addr add fd00::1/64 dev eth0 nodad")
    seen = look(space)
    mine = {str(a): a for a in seen.addresses_of(found(seen, "eth0").index) if a.scope == 0}
    assert set(mine) == {"10.9.0.1/24", "fd00::1/64"}
    assert [mine[address].tentative for address in mine] == [False, False]


@pytest.mark.netns
def test_routes_and_neighbours(space: str) -> None:
    ip(
        space, "addr add 10.9.0.1/24 dev eth0", "route add default via 10.9.0.254 metric 7",
        "route add blackhole 10.66.0.0/16", "neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev eth0",
    )  # fmt: skip
    seen = look(space)
    eth0 = found(seen, "eth0").index
    (default,) = [route for route in seen.routes if route.to == "0.0.0.0/0"]
    assert (default.interface, default.via, default.metric, default.protocol) == (eth0, "10.9.0.254", 7, 3)
    (hole,) = [route for route in seen.routes if route.to == "10.66.0.0/16"]
    assert (hole.interface, hole.kind) == (None, 6)
    assert ("10.9.0.9", "02:00:00:00:00:09", "permanent") in {(n.address, n.mac, n.state) for n in seen.neighbours}


@pytest.mark.netns
def test_the_way_to_an_address(space: str) -> None:
    ip(space, "addr add 10.9.0.1/24 dev eth0", "route add 10.8.0.0/16 via 10.9.0.254")
    eth0 = found(look(space), "eth0").index
    with netns.entered(space):
        near, far = observe.route_to("10.9.0.2"), observe.route_to("10.8.1.1")
        own, none = observe.route_to("10.9.0.1"), observe.route_to("192.0.2.1")
    assert near == observe.RouteAnswer(interface=eth0, via=None, source="10.9.0.1", local=False)
    assert far == observe.RouteAnswer(interface=eth0, via="10.9.0.254", source="10.9.0.1", local=False)
    assert own is not None
    assert own.local
    assert none is None


def test_no_address_at_all() -> None:
    with pytest.raises(ValueError, match="not an address"):
        observe.route_to("not an address")


def test_no_netlink_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(observe, "IPRoute", refuse)
    with pytest.raises(NetError) as caught:
        observe.snapshot()
    assert str(caught.value) == "cannot read network interfaces: Address family not supported by protocol"


def test_virtual_functions() -> None:
    """A parent's message as the kernel builds it (rtnl_fill_vfinfo): encoded and decoded by pyroute2 itself."""
    message = ifinfmsg()
    message["index"] = 3
    silent = 0xFFFFFFFF
    message["attrs"] = [
        ("IFLA_IFNAME", "enp1s0"),
        ("IFLA_VFINFO_LIST", {"attrs": [
            ("IFLA_VF_INFO", {"attrs": [
                ("IFLA_VF_MAC", {"vf": 0, "mac": "02:00:00:00:00:07"}),
                ("IFLA_VF_VLAN", {"vf": 0, "vlan": 100, "qos": 0}),
                ("IFLA_VF_RATE", {"vf": 0, "min_tx_rate": 0, "max_tx_rate": 2000}),
                ("IFLA_VF_SPOOFCHK", {"vf": 0, "spoofchk": 1}),
                ("IFLA_VF_TRUST", {"vf": 0, "trust": 0}),
            ]}),
            ("IFLA_VF_INFO", {"attrs": [
                ("IFLA_VF_MAC", {"vf": 1, "mac": observe.NO_MAC}),
                ("IFLA_VF_SPOOFCHK", {"vf": 1, "spoofchk": silent}),
                ("IFLA_VF_TRUST", {"vf": 1, "trust": silent}),
            ]}),
        ]}),
    ]  # fmt: skip
    message.encode()
    again = ifinfmsg(message.data)
    again.decode()
    assert observe._interface(again, {}).vfs == (
        VirtualFunction(index=0, mac="02:00:00:00:00:07", vlan=100, spoof_check=True, trust=False, max_rate=2000),
        VirtualFunction(index=1),
    )
