"""The network of one namespace as plain records; :mod:`proxy.netdev.observe.observe` reads them."""

from __future__ import annotations

from msgspec import Struct

NO_MAC = "00:00:00:00:00:00"


class VirtualFunction(Struct, frozen=True, kw_only=True):
    """A virtual function as its parent knows it. None: the driver does not say."""

    index: int
    mac: str = NO_MAC
    vlan: int = 0
    spoof_check: bool | None = None
    trust: bool | None = None
    min_rate: int = 0
    """Mbit/s; 0: none."""
    max_rate: int = 0


class NetInterface(Struct, frozen=True, kw_only=True):
    """A network interface."""

    index: int
    name: str
    kind: str = ""
    """IFLA_INFO_KIND: macvlan, vlan, veth, bridge...; "" for hardware and lo."""
    mac: str = ""
    mtu: int = 0
    up: bool = False
    """Administratively."""
    carrier: bool = False
    operstate: str = "unknown"
    alias: str = ""
    parent: int | None = None
    """The one below a macvlan or VLAN, the other end of a veth; in another namespace if ``parent_netns`` is set."""
    parent_netns: int | None = None
    master: int | None = None
    """The bridge or bond that it is a port of."""
    macvlan_mode: str | None = None
    vlan_id: int | None = None
    vfs: tuple[VirtualFunction, ...] = ()
    unicast: tuple[str, ...] = ()
    """MACs beside its own that it receives: of its macvlan children that are up, in whatever namespace they are."""


class Address(Struct, frozen=True, kw_only=True):
    """An IP address of an interface."""

    interface: int
    address: str
    prefix: int
    scope: int = 0
    """0 global, 253 link, 254 host."""
    protocol: int = 0
    """Who made it (IFA_PROTO, Linux 5.18 and newer; 0: not said)."""
    tentative: bool = False
    """IPv6: duplicate detection is not finished, nothing can bind to it yet."""
    duplicate: bool = False
    """IPv6: another machine on the segment has it."""

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


class KernelRoute(Struct, frozen=True, kw_only=True):
    """A route. ``interface`` and ``via`` are None where it has several ways or none."""

    to: str
    """``10.0.0.0/8``; ``0.0.0.0/0`` and ``::/0`` are the default routes."""
    interface: int | None = None
    via: str | None = None
    source: str | None = None
    metric: int = 0
    table: int = 254
    """254 main, 255 local."""
    protocol: int = 0
    """Who made it: 2 the kernel, 3 boot, 4 static..."""
    kind: int = 1
    """1 unicast, 2 local, 3 broadcast, 5 multicast, 6 blackhole, 7 unreachable..."""


class SourceRule(Struct, frozen=True, kw_only=True):
    """A rule of the kernel's routing policy by which what comes from one address is looked up in a table."""

    source: str
    table: int
    protocol: int = 0
    """Who made it (FRA_PROTOCOL): 2 the kernel, 3 boot, 4 static... 0: not said, as by ``ip rule add``."""


class Neighbour(Struct, frozen=True, kw_only=True):
    """An entry of the ARP or neighbour table."""

    interface: int
    address: str
    mac: str = ""
    state: str = "none"


class RouteAnswer(Struct, frozen=True, kw_only=True):
    """The way that the kernel would send a packet."""

    interface: int
    via: str | None
    """None: the destination is on the segment itself, or local."""
    source: str | None
    local: bool
    """The destination is an address of this namespace."""


class NetSnapshot(Struct, frozen=True, kw_only=True):
    """Interfaces, addresses, routes, rules and neighbours of one namespace, read one after the other."""

    interfaces: tuple[NetInterface, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[KernelRoute, ...] = ()
    rules: tuple[SourceRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()

    def named(self, name: str) -> NetInterface | None:
        return next((found for found in self.interfaces if found.name == name), None)

    def at(self, index: int | None) -> NetInterface | None:
        return next((found for found in self.interfaces if found.index == index), None)

    def parent_of(self, interface: NetInterface) -> NetInterface | None:
        """The one below it (`NetInterface.parent`), if that is in this namespace."""
        return self.at(interface.parent) if interface.parent_netns is None else None

    def addresses_of(self, index: int) -> list[Address]:
        return [found for found in self.addresses if found.interface == index]
