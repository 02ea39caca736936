"""The loopback address that stands for a service inside every container of the mesh (docs/containers.md)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

__all__ = ["SharedAddresses", "address_of", "shared"]

_BY_NAME = ipaddress.ip_network("127.64.0.0/10")
_ENDS = (0, 255)
"""Last numbers of an address that some programs take for those of a network, or of all in it."""


def address_of(service: str) -> str:
    """The address, unless a label names another: one of 127.64.0.0/10, by a hash of the name. Some 4 million of them:
    1,000 services collide in one mesh of nine.
    """
    digest = hashlib.sha256(service.encode()).digest()
    number = int.from_bytes(digest[:4], "big") % _BY_NAME.num_addresses
    while number % 256 in _ENDS:
        number = (number + 1) % _BY_NAME.num_addresses
    return str(_BY_NAME[number])


class SharedAddresses:
    """Finds, among the services that have been seen, those that have one address."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._seen: set[str] = set()

    def see(self, services: Iterable[str]) -> list[str]:
        """A line for each service, not seen before, that has the address of another one."""
        lines = []
        for name in services:
            if name in self._seen:
                continue
            self._seen.add(name)
            address = address_of(name)
            if (first := self._first.setdefault(address, name)) != name:
                lines.append(
                    f"services {first} and {name} have one address, {address}: a container that uses both at one port "
                    f"gives one of them another (hostlane.use: {name}@127.x.y.z:PORT)"
                )
        return lines


def shared(services: Iterable[str]) -> list[str]:
    """The lines of `SharedAddresses.see` for all of these."""
    return SharedAddresses().see(sorted(services))
