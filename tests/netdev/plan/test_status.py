from __future__ import annotations

import pytest

from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.plan.plan import plan
from proxy.netdev.plan.status import InterfaceState, duplicate, not_ready, states
from tests.netdev.machine import interfaces
from tests.netdev.picture import ETH0, HL0, VLAN, address, changed, world

DARK = {"carrier": False, "operstate": "lowerlayerdown"}
NO_CABLE = changed(ETH0, carrier=False, operstate="down")


READY: dict[str, tuple[NetworkState, str | None]] = {
    "all is well": (world(ETH0, HL0, address(HL0, "10.9.0.1/24")), None),
    "absent": (world(ETH0), "hl0 does not exist"),
    "down": (world(ETH0, changed(HL0, up=False)), "hl0 is down"),
    "parent down": (
        world(changed(NO_CABLE, up=False), changed(HL0, **DARK)),
        "hl0 has no carrier, because its parent eth0 is down: ip link set eth0 up",
    ),
    "no cable": (
        world(NO_CABLE, changed(HL0, **DARK)),
        "hl0 has no carrier, because its parent eth0 has none; look at its cable and switch port",
    ),
    "no cable under a VLAN": (
        world(NO_CABLE, changed(VLAN, **DARK), changed(HL0, parent=VLAN.index, **DARK)),
        "hl0: eth0.100 has no carrier, because its parent eth0 has none; look at its cable and switch port",
    ),
    "no cable of its own": (
        world(changed(HL0, kind="", parent=None, carrier=False)),
        "hl0 has no carrier; look at its cable and switch port",
    ),
    "a check under way": (
        world(ETH0, HL0, address(HL0, "fd00::1/64", tentative=True)), "hl0 checks whether another machine has fd00::1",
    ),
    "a check of the kernel's own address": (
        world(ETH0, HL0, address(HL0, "fe80::1/64", tentative=True, scope=253)), None,
    ),
    "a duplicate": (
        world(ETH0, changed(HL0, **DARK), address(HL0, "fd00::1/64", duplicate=True)),
        "hl0: another machine on the segment has fd00::1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "why"), READY.values(), ids=READY)
def test_ready(found: NetworkState, why: str | None) -> None:
    assert not_ready("hl0", found.snapshot) == why


@pytest.mark.failure(13)
def test_duplicates() -> None:
    """The same address on two hosts: the kernel finds it for IPv6."""
    assert duplicate("hl0", world(HL0, address(HL0, "fd00::1/64")).snapshot) is None
    assert duplicate("hl0", world().snapshot) is None


def test_states() -> None:
    wanted = interfaces(
        '{hl0: {parent: eth0, mac: "02:00:00:00:00:01", addresses: [10.9.0.1/24]}, '
        'hl1: {parent: eth0, mac: "02:00:00:00:00:31"}, hl2: {parent: eth7}, '
        'hl3: {parent: eth0, mac: "02:00:00:00:00:33", mtu: 1400}}'
    )
    left = changed(HL0, index=8, name="eth9", kind="", alias="hostlane:a:@web:eth0v1", mac="02:00:00:00:00:38")
    old = changed(HL0, index=7, name="old0", alias="hostlane:a:old0", mac="02:00:00:00:00:37")
    hl3 = changed(HL0, index=9, name="hl3", alias="hostlane:a:hl3", mac="02:00:00:00:00:34")
    found = world(
        ETH0,
        HL0,
        hl3,
        left,
        old,
        VLAN,
        changed(VLAN, alias="hostlane:b:x"),
        address(HL0, "10.9.0.1/24"),
        address(HL0, "fe80::1/64", scope=253),
    )
    assert states("a", wanted, found.snapshot, plan("a", wanted, found)) == [
        InterfaceState(
            name="hl0", kind="macvlan", parent="eth0", mac="02:00:00:00:00:01", mtu=1500, addresses=("10.9.0.1/24",)
        ),
        InterfaceState(
            name="hl1", kind="macvlan", parent="eth0", mac="", mtu=0, addresses=(), problem="hl1: not made yet"
        ),
        InterfaceState(
            name="hl2", kind="macvlan", parent="eth7", mac="", mtu=0, addresses=(),
            problem="hl2: parent eth7 does not exist; there are: eth0, eth0.100, eth0.100, eth9, hl0, hl3, old0",
        ),
        InterfaceState(
            name="hl3", kind="macvlan", parent="eth0", mac="02:00:00:00:00:34", mtu=1500, addresses=(),
            problem="hl3: differs from the configuration in 2 points",
        ),
        InterfaceState(
            name="eth9", kind="vf", parent=None, mac="02:00:00:00:00:38", mtu=1500, addresses=(),
            problem="eth9: container web has it no more; apply or remove takes it away",
        ),
        InterfaceState(
            name="old0", kind="macvlan", parent=None, mac="02:00:00:00:00:37", mtu=1500, addresses=(),
            problem="old0: not in the configuration any more; apply or remove takes it away",
        ),
    ]  # fmt: skip
