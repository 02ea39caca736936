from __future__ import annotations

from typing import get_args

import msgspec

from proxy.config import schema as config
from proxy.config.interfaces import (
    ONLY_WITH,
    AnyInterfaceConfig,
    ContainerInterfaceConfig,
    InterfaceConfig,
    Kind,
    RouteConfig,
    SegmentConfig,
)

TEXT = """
host: a
links: {listen: 10.0.0.1:7600, security: none}
interfaces:
  hl0: {parent: eth0, mode: vepa, vlan: 100, mac: "02:00:00:00:00:01", mtu: 9000, addresses: [10.9.0.1/24],
        routes: [{to: default, via: 10.9.0.254, metric: 5}], up_timeout: 1s}
  vf0: {kind: vf, parent: eth1, vfs: 4, spoof_check: false, trust: true, max_rate: 2Gbit}
  eth2: {kind: existing, addresses: ["fd00::1/64"]}
containers:
  web-1: {parent: eth0, name: net0}
segments:
  front: {parent: eth0, vlan: 100, mac_limit: 4096, hosts: 8, over_limit: warn}
"""


def test_every_value_can_be_set() -> None:
    found = config.parse(TEXT, "f")
    assert found.interfaces == {
        "hl0": InterfaceConfig(
            parent="eth0", mode="vepa", vlan=100, mac="02:00:00:00:00:01", mtu=9000, addresses=("10.9.0.1/24",),
            routes=(RouteConfig(to="default", via="10.9.0.254", metric=5),), up_timeout=1.0,
        ),
        "vf0": InterfaceConfig(kind="vf", parent="eth1", vfs=4, spoof_check=False, trust=True, max_rate=2000),
        "eth2": InterfaceConfig(kind="existing", addresses=("fd00::1/64",)),
    }  # fmt: skip
    assert found.containers == {"web-1": ContainerInterfaceConfig(parent="eth0", name="net0")}
    assert found.segments == {
        "front": SegmentConfig(parent="eth0", vlan=100, mac_limit=4096, hosts=8, over_limit="warn")
    }


def test_defaults() -> None:
    found = InterfaceConfig(parent="eth0")
    assert (found.kind, found.mode, found.mac, found.vlan, found.mtu, found.vfs) == (
        "macvlan", "bridge", "stable", None, None, None,
    )  # fmt: skip
    assert (found.spoof_check, found.trust, found.max_rate, found.up_timeout) == (True, False, None, 30.0)
    assert ContainerInterfaceConfig(parent="eth0").name == "eth1"
    assert SegmentConfig(parent="eth0", mac_limit=1).over_limit == "refuse"


def test_what_goes_with_some_kinds_only_is_spelt_as_in_the_sections() -> None:
    keys = {field.name for field in msgspec.structs.fields(AnyInterfaceConfig)}
    assert keys - ONLY_WITH.keys() == {"kind", "addresses", "segment", "routes"}
    assert ONLY_WITH.keys() <= keys
    assert {kind for kinds in ONLY_WITH.values() for kind in kinds} | {"existing"} == set(get_args(Kind))
