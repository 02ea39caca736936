"""What the commands, the proxy's start and the demo do with a configuration's interfaces. Blocks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from proxy.config.schema import Config
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.observe import sysctls, sysfs
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.observe import snapshot
from proxy.netdev.plan.budget import usages
from proxy.netdev.plan.plan import plan, removal
from proxy.netdev.plan.status import InterfaceState, states
from proxy.netdev.plan.steps import NetPlan


def look(*, sysfs_root: str = sysfs.ROOT) -> NetworkState:
    """The network of this thread's namespace as it is now. Raises NetError."""
    found = snapshot()
    names = [item.name for item in found.interfaces]
    return NetworkState(snapshot=found, vf_parents=sysfs.read(names, root=sysfs_root), settings=sysctls.read(names))


def planned(config: Config, world: NetworkState, elsewhere: Mapping[str, int] = MappingProxyType({})) -> NetPlan:
    """The plan for the configuration; a segment over its budget is a problem or a note of it, as configured.

    ``elsewhere``: MACs of other hosts by segment, where the control plane counts them (`budget.usages`).

    Where nothing is to change it is a note: what is there is there, and the proxy can start.
    """
    found = plan(config.host, config.interfaces, world)
    over = [usage for usage in usages(config, world, elsewhere=elsewhere) if usage.over]
    refused = [usage for usage in over if usage.refuse and found.steps]
    return msgspec.structs.replace(
        found,
        problems=(*found.problems, *(str(usage.over) for usage in refused)),
        notes=(*found.notes, *(str(usage.over) for usage in over if usage not in refused)),
    )


def bring_up(config: Config, elsewhere: Mapping[str, int] = MappingProxyType({})) -> NetPlan:
    """Make the interfaces as configured; returns what was done. Raises NetError, nothing is changed then."""
    found = planned(config, look(), elsewhere)
    apply(found, Kernel())
    return found


def absent(config: Config) -> list[str]:
    """The interfaces that the configured ones stand on, or are, and that do not exist: as long as a card is not there.
    Raises NetError.
    """
    there = {item.name for item in snapshot().interfaces}
    wanted = (name if item.kind == "existing" else item.parent for name, item in config.interfaces.items())
    return [name for name in dict.fromkeys(wanted) if name is not None and name not in there]


def take_away(config: Config) -> NetPlan:
    """Remove everything that this host's Hostlane made; returns what was done. Raises NetError as `bring_up`."""
    found = removal(config.host, look())
    apply(found, Kernel())
    return found


def state(config: Config) -> list[InterfaceState]:
    """How the configured interfaces are now. Raises NetError."""
    world = look()
    return states(config.host, config.interfaces, world.snapshot, planned(config, world))
