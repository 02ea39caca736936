"""Sysctls of this namespace, and the addresses that say which of them matter."""

from __future__ import annotations

from proxy.check.readers import files
from proxy.check.report import Unseen
from proxy.check.rules.sysctls import NAMES, PER_INTERFACE, Facts, InterfaceAddress, per_interface
from proxy.check.scene import Scene


def read(scene: Scene) -> Facts:
    """What the kernel has now."""
    values: dict[str, int | Unseen] = {name: files.sysctl(name) for name in NAMES}
    addresses = []
    for item in scene.snapshot.addresses:
        interface = scene.snapshot.at(item.interface)
        if interface is not None and ":" not in item.address:
            addresses.append(InterfaceAddress(interface.name, str(item)))
    for interface_name in sorted({"all", *(item.interface for item in addresses)}):
        for key in PER_INTERFACE:
            name = per_interface(key, interface_name)
            values[name] = files.number(f"/proc/sys/net/ipv4/conf/{interface_name}/{key}", name)
    return Facts(values=values, addresses=tuple(addresses))
