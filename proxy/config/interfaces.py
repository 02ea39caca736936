"""The sections ``interfaces``, ``containers`` and ``segments`` of a host's configuration (`proxy.config.schema`).

An interface is one flat section whose ``kind`` says which keys go with it (:mod:`proxy.config.interfacecheck`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from control.base.reading import units
from control.base.reading.decode import between, read_by
from control.base.reading.keys import Duration
from proxy.config import netvalues

InterfaceName = Annotated[str, read_by(netvalues.interface_name, netvalues.INTERFACE_NAME)]
Mac = Annotated[str, read_by(netvalues.mac, netvalues.MAC)]
PrefixedAddress = Annotated[str, read_by(netvalues.address_or_auto, netvalues.ADDRESS_OR_AUTO)]
SegmentName = Annotated[str | None, read_by(units.or_null(units.service_name), units.SERVICE_NAME)]
Network = Annotated[str, read_by(netvalues.network, netvalues.NETWORK)]
Ip = Annotated[str, read_by(netvalues.ip, netvalues.IP)]
Rate = Annotated[int, read_by(netvalues.rate, netvalues.RATE)]
VlanId = Annotated[int, between(1, 4094)] | None

Kind = Literal["macvlan", "vf", "existing"]
Mode = Literal["bridge", "private", "vepa", "passthru"]

ONLY_WITH: dict[str, tuple[Kind, ...]] = {
    "parent": ("macvlan", "vf"),
    "mode": ("macvlan",),
    "vlan": ("macvlan", "vf"),
    "mac": ("macvlan", "vf"),
    "mtu": ("macvlan", "vf"),
    "vfs": ("vf",),
    "spoof_check": ("vf",),
    "trust": ("vf",),
    "max_rate": ("vf",),
}
"""Keys that stand with some kinds only. What exists already belongs to somebody else: it gets addresses and routes."""


class RouteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A route through the interface."""

    to: Network
    via: Annotated[str | None, read_by(units.or_null(netvalues.ip), netvalues.IP)] = None
    """None: the network is on the segment itself."""
    metric: Annotated[int, between(0, 2**32 - 1)] = 0


class AnyInterfaceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network interface, of this host or of a container."""

    kind: Kind = "macvlan"
    parent: Annotated[str | None, read_by(units.or_null(netvalues.interface_name), netvalues.INTERFACE_NAME)] = None
    mode: Mode = "bridge"
    vlan: VlanId = None
    """macvlan: the child of a VLAN interface on the parent; vf: tagged by the parent, unseen by the function."""
    mac: Mac = netvalues.STABLE
    mtu: Annotated[int, between(68, 65535)] | None = None
    """None: the parent's."""
    vfs: Annotated[int, between(1, 65535)] | None = None
    """Virtual functions that the parent shall have at least; None: as many as it has, one if it has none."""
    spoof_check: bool = True
    trust: bool = False
    max_rate: Annotated[int | None, read_by(units.or_null(netvalues.rate), netvalues.RATE)] = None
    """Mbit/s; None: unlimited."""
    addresses: tuple[PrefixedAddress, ...] = ()
    """``auto``: one that the control plane leases, and then its MAC (`netdev.leases.leases.fill` enters it)."""
    segment: SegmentName = None
    """The control plane's pool that ``auto`` is of; None: ``links.segment``."""
    routes: tuple[RouteConfig, ...] = ()


class InterfaceConfig(AnyInterfaceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network interface of this host."""

    up_timeout: Duration = 30.0
    """How long the proxy's start waits for the link."""
    source_table: Annotated[
        int | None, read_by(units.or_null(netvalues.routing_table), netvalues.ROUTING_TABLE)
    ] = None
    """The routing table by which goes what comes from its addresses; None: no rule says so."""


class ContainerInterfaceConfig(AnyInterfaceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An interface that a container gets from this host."""

    name: InterfaceName = "eth1"
    """What it is called in the container."""


class SegmentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment whose switches can keep so many MACs and no more."""

    parent: InterfaceName
    vlan: VlanId = None
    mac_limit: Annotated[int, between(1, 1_000_000)]
    hosts: Annotated[int, between(1, 100_000)] | None = None
    """Hosts that share the segment; None: this one and its peers."""
    over_limit: Literal["refuse", "warn"] = "refuse"
