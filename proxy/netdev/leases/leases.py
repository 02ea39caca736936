"""Addresses that the control plane leases, and the configuration with them in the place of ``auto`` (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct, structs

from control.api.mesh import AddressLease
from control.base.reading.addresses import TcpAddress
from proxy.config.interfaces import ONLY_WITH, AnyInterfaceConfig
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config

Wanted = TypeVar("Wanted", bound=AnyInterfaceConfig)


class LeasedAddresses(Struct, frozen=True, kw_only=True):
    """What the control plane's address book has said.

    Attributes:
        leases: this host's, by segment.
        elsewhere: MACs that other hosts have on a segment of the configuration, for those that the control plane knows.
        notes: what could not be learnt, a line each.
    """

    leases: Mapping[str, AddressLease] = {}
    elsewhere: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()


def part_of(container: str, name: str) -> str:
    """What a container's interface is called in the address book (`control.api.mesh.AddressRequest.part`)."""
    return f"@{container}:{name}"


def segment_of(config: Config, interface: AnyInterfaceConfig) -> str | None:
    """The segment that the interface's ``auto`` is of; None: it has none, or nobody says which."""
    return (interface.segment or config.links.segment) if AUTO in interface.addresses else None


def segments(config: Config) -> tuple[str, ...]:
    """The segments on which this host needs a lease for itself, each once."""
    found = [segment for item in config.interfaces.values() if (segment := segment_of(config, item)) is not None]
    return tuple(dict.fromkeys(found))


def fill(config: Config, leases: Mapping[str, AddressLease]) -> Config:
    """The configuration with the leased addresses in it; what has no lease stays as it is."""
    interfaces = {}
    for name, item in config.interfaces.items():
        lease = leases.get(segment_of(config, item) or "")
        interfaces[name] = item if lease is None else fill_interface(item, lease)
    links = config.links
    lease = leases.get(links.segment or "")
    if links.address is not None:
        host = AUTO if lease is None else ip_of(lease)
        links = structs.replace(links, listen=TcpAddress(host, links.address.port))
    return structs.replace(config, interfaces=interfaces, links=links)


def fill_interface(interface: Wanted, lease: AddressLease) -> Wanted:
    """The interface with the lease's address, and its MAC where it has one of its own."""
    addresses = tuple(lease.address if address == AUTO else address for address in interface.addresses)
    mac = lease.mac if interface.kind in ONLY_WITH["mac"] and lease.mac else interface.mac
    return structs.replace(interface, addresses=addresses, mac=mac)


def ip_of(lease: AddressLease) -> str:
    """The address without its prefix length."""
    return lease.address.partition("/")[0]
