"""Offloads of the interfaces that links use, and what sysfs says about SR-IOV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.readers.ethtool import offloads
from proxy.check.rules.hardware import Device, HardwareFacts, Offloads
from proxy.netdev.observe.observe import NetInterface

SYSFS = Path("/sys")


def read(context: DiagnosisContext) -> HardwareFacts:
    """Of every interface that a link would use, with its parent; of all that are up, if there are no peers."""
    used = {found.index: found for found in _used(context)}.values()
    return HardwareFacts(
        offloads=tuple(Offloads(interface=found.name, kind=found.kind, on=offloads(found.name)) for found in used),
        devices=tuple(devices(SYSFS)),
        iommu=has_iommu(SYSFS),
    )


def devices(sysfs: Path) -> Iterator[Device]:
    """The interfaces that offer virtual functions."""
    for path in sorted(sysfs.glob("class/net/*/device/sriov_totalvfs")):
        possible = files.number(str(path), path.name)
        made = files.number(str(path.with_name("sriov_numvfs")), "sriov_numvfs")
        if isinstance(possible, int) and isinstance(made, int) and possible:
            yield Device(interface=path.parts[-3], possible=possible, made=made)


def has_iommu(sysfs: Path) -> bool:
    """Whether the kernel has put devices into IOMMU groups."""
    try:
        return bool(os.listdir(sysfs / "kernel/iommu_groups"))
    except OSError:
        return False


def _used(context: DiagnosisContext) -> Iterator[NetInterface]:
    for target in context.targets:
        route = context.route_to(target.address) if target.address else None
        interface = context.snapshot.at(route.interface) if route else None
        if interface is not None:
            yield from _with_parent(context, interface)
    if not context.targets:
        for interface in context.snapshot.interfaces:
            if interface.up and context.snapshot.addresses_of(interface.index):
                yield from _with_parent(context, interface)


def _with_parent(context: DiagnosisContext, interface: NetInterface) -> Iterator[NetInterface]:
    if interface.name == "lo":
        return
    yield interface
    parent = context.snapshot.parent_of(interface)
    if parent is not None and interface.kind in ("macvlan", "vlan", "ipvlan"):
        yield parent
