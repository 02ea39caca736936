"""What a plan starts from: one record of the live network and of the devices with virtual functions (sans-IO)."""

from __future__ import annotations

from msgspec import Struct

from proxy.netdev.observe.records import NetInterface, NetSnapshot


class VfDevice(Struct, frozen=True, kw_only=True):
    """A virtual function as sysfs shows it."""

    index: int
    interface: str | None = None
    """None: it has no interface in this namespace (moved into a container, given to a VM, without a driver)."""
    driver: str | None = None


class VfParent(Struct, frozen=True, kw_only=True):
    """A device that can have virtual functions."""

    total: int
    """sriov_totalvfs: what the device can have."""
    devices: tuple[VfDevice, ...] = ()


class Ipv4Settings(Struct, frozen=True):
    """Settings of one interface, of ``all`` or of ``default`` (ip-sysctl.rst)."""

    arp_ignore: int
    arp_announce: int
    rp_filter: int


class NetworkState(Struct, frozen=True, kw_only=True):
    """Everything that a plan looks at. ``vf_parents`` holds only interfaces whose device can have virtual functions."""

    snapshot: NetSnapshot
    vf_parents: dict[str, VfParent] = {}
    settings: dict[str, Ipv4Settings] = {}
    """Of ``all``, ``default`` and the interfaces, as far as they can be changed."""

    def children(self, parent: NetInterface) -> list[NetInterface]:
        """The macvlan and VLAN interfaces of this namespace that stand on ``parent``."""
        return [
            found
            for found in self.snapshot.interfaces
            if found.parent == parent.index and found.parent_netns is None and found.kind in ("macvlan", "vlan")
        ]


def effective(settings: dict[str, Ipv4Settings], name: str) -> Ipv4Settings | None:
    """What counts for an interface: the greater of ``all`` and its own (ip-sysctl.rst). None: it cannot be changed."""
    own, everywhere = settings.get(name), settings.get("all")
    if own is None or everywhere is None:
        return None
    return Ipv4Settings(
        max(own.arp_ignore, everywhere.arp_ignore),
        max(own.arp_announce, everywhere.arp_announce),
        max(own.rp_filter, everywhere.rp_filter),
    )
