"""Offloads of the interfaces that links use, and what sysfs says about SR-IOV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from proxy.check.readers import files
from proxy.check.readers.ethtool import offloads
from proxy.check.rules.hardware import Device, Facts, Offloads
from proxy.check.scene import Scene
from proxy.netdev.observe.observe import Interface, route_to

SYSFS = Path("/sys")


def read(scene: Scene) -> Facts:
    """Of every interface that a link would use, with its parent; of all that are up, if there are no peers."""
    used = {found.index: found for found in _used(scene)}.values()
    return Facts(
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


def _used(scene: Scene) -> Iterator[Interface]:
    for target in scene.targets:
        route = route_to(target.address) if target.address else None
        interface = scene.snapshot.at(route.interface) if route else None
        if interface is not None:
            yield from _with_parent(scene, interface)
    if not scene.targets:
        for interface in scene.snapshot.interfaces:
            if interface.up and scene.snapshot.addresses_of(interface.index):
                yield from _with_parent(scene, interface)


def _with_parent(scene: Scene, interface: Interface) -> Iterator[Interface]:
    if interface.name == "lo":
        return
    yield interface
    parent = scene.snapshot.parent_of(interface)
    if parent is not None and interface.kind in ("macvlan", "vlan", "ipvlan"):
        yield parent
