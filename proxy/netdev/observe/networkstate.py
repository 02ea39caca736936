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


class NetworkState(Struct, frozen=True, kw_only=True):
    """Everything that a plan looks at. ``vf_parents`` holds only interfaces whose device can have virtual functions."""

    snapshot: NetSnapshot
    vf_parents: dict[str, VfParent] = {}

    def children(self, parent: NetInterface) -> list[NetInterface]:
        """The macvlan and VLAN interfaces of this namespace that stand on ``parent``."""
        return [
            found
            for found in self.snapshot.interfaces
            if found.parent == parent.index and found.parent_netns is None and found.kind in ("macvlan", "vlan")
        ]
