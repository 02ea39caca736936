"""What the interfaces under the links can do by themselves: segmentation offloads and virtual functions."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

FEATURES = {
    "tso": "the kernel cuts every large write into segments itself and walks the whole stack for each: up to 45 times "
    "for 64 KiB",
    "gro": "each arriving segment walks the whole stack alone, instead of up to 45 of them together",
}


NO_GRO = frozenset({"macvlan", "macvtap", "ipvlan", "vlan", "veth", "bridge"})
"""Kinds that get their packets from another interface, where GRO has its place: off is how the kernel makes them."""


class Offloads(Struct, frozen=True, kw_only=True):
    """Which offloads of one interface are on, by the names of `FEATURES`."""

    interface: str
    kind: str
    """As netlink says it; "" for hardware."""
    on: dict[str, bool] | Unchecked


class Device(Struct, frozen=True, kw_only=True):
    """An interface that can be split into virtual functions."""

    interface: str
    possible: int
    made: int


class HardwareFacts(Struct, frozen=True, kw_only=True):
    """Offloads, and devices with virtual functions. ``iommu``: whether the kernel uses one."""

    offloads: tuple[Offloads, ...] = ()
    devices: tuple[Device, ...] = ()
    iommu: bool = False


def judge(facts: HardwareFacts) -> Iterator[Line]:
    """All lines about hardware."""
    for item in facts.offloads:
        yield from _offloads(item)
    for device in facts.devices:
        if device.made:
            yield Passed(f"{device.interface}: {device.made} of {device.possible} virtual functions are made")
        else:
            yield _unused(device)
        if not facts.iommu:
            yield _no_iommu(device)
    if not facts.devices:
        yield Passed("no interface here offers SR-IOV")


def _offloads(item: Offloads) -> Iterator[Line]:
    if isinstance(item.on, Unchecked):
        yield item.on
        return
    wanted = [name for name in FEATURES if name != "gro" or item.kind not in NO_GRO]
    for feature in wanted:
        if not item.on[feature]:
            yield Finding(
                name=f"{feature}-off",
                level="note",
                where=item.interface,
                read=f"{feature} of {item.interface} is off",
                cost=f"{FEATURES[feature]}; small messages do not notice",
                mend=f"ethtool -K {item.interface} {feature} on",
            )
    if all(item.on[feature] for feature in wanted):
        yield Passed(f"{item.interface}: on are {', '.join(wanted)}")


def _unused(device: Device) -> Finding:
    return Finding(
        name="unused-sriov",
        level="note",
        where=device.interface,
        read=f"{device.interface} can have {device.possible} virtual functions and has none",
        cost="a macvlan shares the queues and interrupts of its parent; a virtual function has its own",
        mend=f"echo {min(device.possible, 4)} > /sys/class/net/{device.interface}/device/sriov_numvfs, or hostlane net "
        "apply with a VF in interfaces",
    )


def _no_iommu(device: Device) -> Finding:
    return Finding(
        name="no-iommu",
        level="note",
        where=device.interface,
        read=f"{device.interface} offers SR-IOV, and the kernel uses no IOMMU",
        cost="virtual functions work for containers of this host, and cannot be given to virtual machines; nothing "
        "keeps a faulty one from writing over the host's memory",
        mend="boot with intel_iommu=on or amd_iommu=on, and switch VT-d or AMD-Vi on in the firmware",
    )
