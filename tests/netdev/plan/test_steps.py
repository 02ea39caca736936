from __future__ import annotations

import pytest

from proxy.netdev.plan.steps import (
    CreateLink,
    DeleteLink,
    MoveLink,
    Operation,
    SetAddress,
    SetLink,
    SetRoute,
    SetSetting,
    SetVf,
    SetVfCount,
    VfLink,
)

TEXTS: list[tuple[Operation, str]] = [
    (CreateLink(link="hl0", kind="macvlan", parent="eth0", mode="vepa"), "hl0: create macvlan on eth0, mode vepa"),
    (
        CreateLink(
            link="x", kind="macvlan", parent="eth0", mode="bridge", mac="02:00:00:00:00:01", mtu=9000, into=True
        ),
        "x: create macvlan on eth0, mode bridge, mac 02:00:00:00:00:01, mtu 9000, in the container",
    ),
    (CreateLink(link="eth0.5", kind="vlan", parent="eth0", vlan=5), "eth0.5: create vlan on eth0, id 5"),
    (DeleteLink(link="hl0"), "hl0: delete"),
    (MoveLink(link="x"), "x: move into the container"),
    (MoveLink(link="x", inside=True), "x: move back to the host"),
    (SetLink(link="hl0", key="state", value="up"), "hl0: set up"),
    (SetLink(link="hl0", key="mtu", value=1400), "hl0: set mtu 1400"),
    (SetLink(link="hl0", key="alias", value="hostlane:a:hl0"), "hl0: mark as hostlane:a:hl0"),
    (SetLink(link="hl0", key="alias", value=""), "hl0: remove the mark"),
    (SetLink(link=VfLink("eth1", 3), key="name", value="vf0"), "eth1 vf 3: rename to vf0"),
    (SetAddress(link="hl0", address="10.9.0.1/24"), "hl0: add address 10.9.0.1/24"),
    (SetAddress(link="hl0", address="10.9.0.1/24", present=False), "hl0: delete address 10.9.0.1/24"),
    (SetRoute(link="hl0", to="10.8.0.0/16"), "hl0: add route 10.8.0.0/16"),
    (
        SetRoute(link="hl0", to="0.0.0.0/0", via="10.9.0.254", metric=5, present=False),
        "hl0: delete route 0.0.0.0/0 via 10.9.0.254 metric 5",
    ),
    (SetSetting(link="eth0", key="arp_ignore", value=1), "eth0: set arp_ignore 1"),
    (SetVf(parent="eth1", vf=3, key="spoof_check", value=False), "eth1 vf 3: set spoof check off"),
    (SetVf(parent="eth1", vf=3, key="vlan", value=100), "eth1 vf 3: set vlan 100"),
    (SetVf(parent="eth1", vf=3, key="max_rate", value=500), "eth1 vf 3: set max rate 500 Mbit/s"),
    (SetVf(parent="eth1", vf=3, key="max_rate", value=0), "eth1 vf 3: set max rate 0"),
    (SetVfCount(parent="eth1", count=4), "eth1: set the number of virtual functions to 4"),
]


@pytest.mark.parametrize(("operation", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_each_is_one_line(operation: Operation, text: str) -> None:
    assert str(operation) == text
