"""How many MACs a segment's switches have to keep (sans-IO): what is used, each host's share, and how to divide.

A switch that runs out of room for MACs floods frames to every port. Every macvlan child and every virtual function is
one more, which is why Hostlane puts one interface a host on the segment and not one a container; docs/network.md has
the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, structs

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.config.interfaces import SegmentConfig
from proxy.config.schema import Config
from proxy.netdev.observe import mark
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NO_MAC, NetInterface
from proxy.netdev.plan.links import wanted_mac


class MacUsage(Struct, frozen=True, kw_only=True):
    """What this host puts on one segment, once its configuration is applied."""

    segment: str
    parent: str
    vlan: int | None
    mac_limit: int
    hosts: int
    share: int
    """mac_limit / hosts: if every host keeps to it, the switches have room for all."""
    macs: tuple[str, ...]
    refuse: bool
    """What the configuration says about more than the share; False: warn."""
    elsewhere: int | None = None
    """MACs of the other hosts there, as the control plane counts them; None: it does not, and the share counts."""

    @property
    def over(self) -> str | None:
        """One line if it is more than the share, or than the limit where somebody counts."""
        if self.elsewhere is not None:
            total = len(self.macs) + self.elsewhere
            if total <= self.mac_limit:
                return None
            return (
                f"segment {self.segment}: {total} MACs of {self.mac_limit} would be used, {len(self.macs)} here and "
                f"{self.elsewhere} by other hosts, as the control plane counts them"
            )
        if len(self.macs) <= self.share:
            return None
        return (
            f"segment {self.segment}: this host would use {len(self.macs)} MACs of its share of {self.share} "
            f"({self.mac_limit} for {self.hosts} host{'s' * (self.hosts != 1)})"
        )


class SegmentDivision(Struct, frozen=True, kw_only=True):
    """How hosts and containers can be spread over segments."""

    macs: int
    """On all segments together."""
    segments: int
    hosts_per_segment: int
    containers_per_host: int
    """On one segment."""
    segments_per_host: int
    """More than one where a host has more containers than a segment has room for."""

    def __str__(self) -> str:
        return (
            f"{self.segments} segments with at most {self.hosts_per_segment} hosts each; each host on "
            f"{self.segments_per_host} of them, with at most {self.containers_per_host} containers there; "
            f"{self.macs} MACs in all"
        )


def usages(
    config: Config,
    world: NetworkState,
    extra: Wanted | None = None,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> list[MacUsage]:
    """Every segment of the configuration.

    ``extra``: an interface that a container would get now; ``elsewhere``: MACs of other hosts by segment, where the
    control plane counts them.
    """
    found = [_usage(config, name, segment, world, extra) for name, segment in config.segments.items()]
    return [structs.replace(usage, elsewhere=elsewhere.get(usage.segment)) for usage in found]


def divide(hosts: int, containers: int, mac_limit: int) -> SegmentDivision:
    """The fewest segments for so many hosts with so many containers each, if each container has a MAC of its own.

    A host costs two MACs a segment (its parent interface and Hostlane's own) and one for each container there. Raises
    ValueError where not even one host with one container fits.
    """
    own = 2
    per_host = mac_limit - own
    if min(hosts, mac_limit) < 1 or containers < 0 or per_host < min(containers, 1):
        raise ValueError(f"a host with a container takes {own + 1} MACs; allowed: a limit of at least {own + 1}")
    parts = max(1, -(-containers // max(per_host, 1)))
    there = -(-containers // parts)
    together = min(hosts, mac_limit // (own + there))
    segments = -(-hosts // together) * parts
    return SegmentDivision(
        macs=hosts * (own * parts + containers),
        segments=segments,
        hosts_per_segment=together,
        containers_per_host=there,
        segments_per_host=parts,
    )


def _usage(config: Config, name: str, segment: SegmentConfig, world: NetworkState, extra: Wanted | None) -> MacUsage:
    hosts = segment.hosts or 1 + len(config.peers)
    found = _present(config, segment, world) | {
        wanted_mac(config.host, key, item) for key, item in config.interfaces.items() if _is_on(segment, item)
    }
    macs = sorted(found - {"", NO_MAC})
    if extra is not None and _is_on(segment, extra):
        macs.append("(the new one)")
    return MacUsage(
        segment=name,
        parent=segment.parent,
        vlan=segment.vlan,
        mac_limit=segment.mac_limit,
        hosts=hosts,
        share=segment.mac_limit // hosts,
        macs=tuple(macs),
        refuse=segment.over_limit == "refuse",
    )


def _is_on(segment: SegmentConfig, item: Wanted) -> bool:
    return item.kind != "existing" and (item.parent, item.vlan) == (segment.parent, segment.vlan)


def _present(config: Config, segment: SegmentConfig, world: NetworkState) -> set[str]:
    """The device's own MAC, those it receives for children in whatever namespace, and those of its functions.

    Without this host's own children: those that stay are counted as the configuration has them.
    """
    parent = world.snapshot.named(segment.parent)
    if parent is None:
        return set()
    macs = {vf.mac for vf in parent.vfs if (vf.vlan or None) == segment.vlan}
    device = parent if segment.vlan is None else _vlan(world, parent, segment.vlan)
    if device is not None:
        children = [child for child in world.children(device) if child.kind == "macvlan"]
        own = {child.mac for child in children if _is_own(config, child)} - {device.mac}
        macs |= {device.mac, *device.unicast, *(child.mac for child in children)} - own
    return macs


def _vlan(world: NetworkState, parent: NetInterface, vlan: int) -> NetInterface | None:
    return next((child for child in world.children(parent) if child.vlan_id == vlan), None)


def _is_own(config: Config, child: NetInterface) -> bool:
    found = mark.read(child.alias)
    return found is not None and found.host == config.host and found.container is None
