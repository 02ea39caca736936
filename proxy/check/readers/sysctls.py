"""Sysctls of this namespace, and the addresses that say which of them matter."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.report import Unchecked
from proxy.check.rules.sysctls import NAMES, PER_INTERFACE, InterfaceAddress, SysctlFacts, per_interface
from proxy.netdev.observe.observe import NetSnapshot


def read(context: DiagnosisContext) -> SysctlFacts:
    """What the kernel has now."""
    values: dict[str, int | Unchecked] = {name: files.sysctl(name) for name in NAMES}
    addresses = []
    for item in context.snapshot.addresses:
        interface = context.snapshot.at(item.interface)
        if interface is not None and ":" not in item.address:
            addresses.append(InterfaceAddress(interface.name, str(item)))
    parents = dict(_parents(context.snapshot))
    for interface_name in sorted({"all", *(item.interface for item in addresses), *parents, *parents.values()}):
        for key in PER_INTERFACE:
            name = per_interface(key, interface_name)
            values[name] = files.number(f"/proc/sys/net/ipv4/conf/{interface_name}/{key}", name)
    return SysctlFacts(values=values, addresses=tuple(addresses), parents=parents)


def _parents(here: NetSnapshot) -> Iterator[tuple[str, str]]:
    for interface in here.interfaces:
        parent = here.parent_of(interface)
        if interface.kind == "macvlan" and parent is not None:
            yield interface.name, parent.name
