"""Worlds as tests of the planner write them: a few interfaces, addresses and routes, without a kernel."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.netdev.observe.records import Address, Interface, Route, Snapshot, Vf
from proxy.netdev.observe.world import VfDevice, VfParent, World

ETH0 = Interface(index=2, name="eth0", mac="02:00:00:00:00:10", mtu=1500, up=True, carrier=True, operstate="up")
HL0 = Interface(
    index=3, name="hl0", kind="macvlan", mac="02:00:00:00:00:01", mtu=1500, up=True, carrier=True, operstate="up",
    alias="hostlane:a:hl0", parent=2, macvlan_mode="bridge",
)  # fmt: skip
VLAN = Interface(
    index=4, name="eth0.100", kind="vlan", mac=ETH0.mac, mtu=1500, up=True, carrier=True, operstate="up",
    alias="hostlane:a:eth0.100", parent=2, vlan_id=100,
)  # fmt: skip


def changed(interface: Interface, **values: Any) -> Interface:
    return msgspec.structs.replace(interface, **values)


def address(interface: Interface, text: str, protocol: int = 72, **values: Any) -> Address:
    ip, _, prefix = text.partition("/")
    return Address(interface=interface.index, address=ip, prefix=int(prefix), protocol=protocol, **values)


def route(interface: Interface, to: str, via: str | None = None, protocol: int = 72, **values: Any) -> Route:
    return Route(interface=interface.index, to=to, via=via, protocol=protocol, **values)


def world(*parts: Interface | Address | Route, functions: tuple[VfDevice, ...] | None = None) -> World:
    """``functions``: those of eth0, which has none and can have none without."""
    return World(
        snapshot=Snapshot(
            interfaces=tuple(part for part in parts if isinstance(part, Interface)),
            addresses=tuple(part for part in parts if isinstance(part, Address)),
            routes=tuple(part for part in parts if isinstance(part, Route)),
        ),
        vf_parents={} if functions is None else {"eth0": VfParent(total=8, devices=functions)},
    )


def vf(index: int = 0, **values: Any) -> Vf:
    return Vf(index=index, spoof_check=True, trust=False, **values)
