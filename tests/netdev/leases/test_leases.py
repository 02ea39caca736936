"""The configuration with leased addresses in it."""

from __future__ import annotations

from control.api.mesh import AddressLease
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config, parse
from proxy.netdev.leases.leases import fill, fill_interface, ip_of, part_of, segment_of, segments
from proxy.netdev.plan.links import wanted_mac

LAN = AddressLease(segment="lan", address="10.79.0.5/24", mac="02:aa:00:00:00:05", lease=60.0)
WAN = AddressLease(segment="wan", address="10.80.0.6/24", mac="02:bb:00:00:00:06", lease=60.0)


def config(interfaces: str, links: str = "address: 'auto:7601', segment: lan") -> Config:
    control = "control: {servers: ['10.0.0.1:7601']}"
    return parse(f"host: a\nlinks: {{{links}}}\n{control}\ninterfaces: {{{interfaces}}}\n", "f")


TWO = config(
    "hl0: {parent: eth0, addresses: [auto, 'fd00::1/64']}, "
    "hl1: {parent: eth1, addresses: [auto], segment: wan}, hl2: {parent: eth2, addresses: [10.1.0.1/24]}"
)


def test_which_segments_a_host_needs() -> None:
    assert segments(TWO) == ("lan", "wan")
    assert segment_of(TWO, TWO.interfaces["hl2"]) is None
    assert segments(config("hl0: {parent: eth0, addresses: [10.9.0.1/24]}", "listen: '10.9.0.1:1', segment: lan")) == ()


def test_filled() -> None:
    found = fill(TWO, {"lan": LAN, "wan": WAN})
    assert found.links.listen == TcpAddress("10.79.0.5", 7601)
    assert found.interfaces["hl0"].addresses == ("10.79.0.5/24", "fd00::1/64")
    assert wanted_mac("a", "hl0", found.interfaces["hl0"]) == LAN.mac
    assert found.interfaces["hl1"].addresses == ("10.80.0.6/24",)
    assert found.interfaces["hl2"] is TWO.interfaces["hl2"]
    assert fill(found, {"lan": LAN, "wan": WAN}) == found


def test_what_has_no_lease_stays() -> None:
    found = fill(TWO, {"wan": WAN})
    assert found.interfaces["hl0"] is TWO.interfaces["hl0"]
    assert found.links.listen == TcpAddress("auto", 7601)
    assert fill(TWO, {}).interfaces == TWO.interfaces


def test_what_keeps_a_mac_of_its_own_takes_the_address_alone() -> None:
    found = fill(config("eth0: {kind: existing, addresses: [auto]}"), {"lan": LAN}).interfaces["eth0"]
    assert (found.addresses, found.mac) == (("10.79.0.5/24",), "stable")
    passthru = config("hl0: {parent: eth0, mode: passthru, addresses: [auto]}").interfaces["hl0"]
    assert wanted_mac("a", "hl0", fill_interface(passthru, LAN)) == ""


def test_names() -> None:
    assert part_of("web-1", "eth1") == "@web-1:eth1"
    assert ip_of(LAN) == "10.79.0.5"
