"""Worlds as tests of the planner write them: a few interfaces, addresses and routes, without a kernel."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.netdev.observe.networkstate import NetworkState, VfDevice, VfParent
from proxy.netdev.observe.records import Address, KernelRoute, NetInterface, NetSnapshot, SourceRule, VirtualFunction

ETH0 = NetInterface(index=2, name="eth0", mac="02:00:00:00:00:10", mtu=1500, up=True, carrier=True, operstate="up")
HL0 = NetInterface(
    index=3, name="hl0", kind="macvlan", mac="02:00:00:00:00:01", mtu=1500, up=True, carrier=True, operstate="up",
    alias="hostlane:a:hl0", parent=2, macvlan_mode="bridge",
)  # fmt: skip
VLAN = NetInterface(
    index=4, name="eth0.100", kind="vlan", mac=ETH0.mac, mtu=1500, up=True, carrier=True, operstate="up",
    alias="hostlane:a:eth0.100", parent=2, vlan_id=100,
)  # fmt: skip


def changed(interface: NetInterface, **values: Any) -> NetInterface:
    return msgspec.structs.replace(interface, **values)


def address(interface: NetInterface, text: str, protocol: int = 72, **values: Any) -> Address:
    ip, _, prefix = text.partition("/")
    return Address(interface=interface.index, address=ip, prefix=int(prefix), protocol=protocol, **values)


def route(interface: NetInterface, to: str, via: str | None = None, protocol: int = 72, **values: Any) -> KernelRoute:
    return KernelRoute(interface=interface.index, to=to, via=via, protocol=protocol, **values)


def rule(source: str, table: int, protocol: int = 72) -> SourceRule:
    return SourceRule(source=source, table=table, protocol=protocol)


def world(
    *parts: NetInterface | Address | KernelRoute | SourceRule, functions: tuple[VfDevice, ...] | None = None
) -> NetworkState:
    """``functions``: those of eth0, which has none and can have none without."""
    return NetworkState(
        snapshot=NetSnapshot(
            interfaces=tuple(part for part in parts if isinstance(part, NetInterface)),
            addresses=tuple(part for part in parts if isinstance(part, Address)),
            routes=tuple(part for part in parts if isinstance(part, KernelRoute)),
            rules=tuple(part for part in parts if isinstance(part, SourceRule)),
        ),
        vf_parents={} if functions is None else {"eth0": VfParent(total=8, devices=functions)},
    )


def vf(index: int = 0, **values: Any) -> VirtualFunction:
    return VirtualFunction(index=index, spoof_check=True, trust=False, **values)
