"""How Hostlane knows its own: every interface that it made or took bears a mark, its alias (``ip link`` shows it).

    hostlane:HOST:NAME                        an interface of the configuration, or a VLAN interface made for one
    hostlane:HOST:NAME:ORIGINAL:MAC:VFS       a virtual function: its name and MAC before, where it had any, and how
                                              many functions its parent had before Hostlane asked for more
    hostlane:HOST:NAME:arp                    a macvlan child whose parent was made to answer ARP for itself alone
    hostlane:HOST:@CONTAINER:...              what a container got; a virtual function as above

Addresses and routes bear a protocol number, as routing daemons do: also on interfaces that belong to somebody else.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct

PROTOCOL = 72
"""Of addresses and routes. Above 4 (static) the kernel leaves the numbers to programs; this one has no name in
iproute2's rt_protos (72 is an "H")."""

PREFIX = "hostlane"


class InterfaceMark(Struct, frozen=True, kw_only=True):
    """What an alias says."""

    host: str
    name: str
    original: str = ""
    original_mac: str = ""
    vfs_before: int | None = None
    """Set on the virtual functions that were there because Hostlane asked the parent for more."""

    @property
    def container(self) -> str | None:
        """The container that got this interface."""
        return self.name[1:] if self.name.startswith("@") else None

    def __str__(self) -> str:
        parts = [PREFIX, self.host, self.name, self.original, self.original_mac.replace(":", "")]
        parts.append("" if self.vfs_before is None else str(self.vfs_before))
        return ":".join(parts).rstrip(":")


def read(alias: str) -> InterfaceMark | None:
    """The mark in an alias; None for the alias of anybody else."""
    prefix, *parts = alias.split(":")
    if prefix != PREFIX or not 2 <= len(parts) <= 5:
        return None
    host, name, original, mac, before = [*parts, "", "", ""][:5]
    return InterfaceMark(
        host=host,
        name=name,
        original=original,
        original_mac=":".join(mac[i : i + 2] for i in range(0, len(mac), 2)),
        vfs_before=int(before) if before.isdecimal() else None,
    )


def stable_mac(host: str, name: str) -> str:
    """The MAC of an interface, the same after each start and on each machine that takes the host's name.

    The first 6 bytes of SHA-256 over ``hostlane``, host and name, each followed by a zero byte; in the first byte bit 1
    is set (locally administered) and bit 0 cleared (one machine). 46 bits are left: among 10,000 such interfaces on one
    segment the odds that any two agree are below one in a million.
    """
    digest = hashlib.sha256(f"{PREFIX}\0{host}\0{name}\0".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def vlan_name(parent: str, vlan: int) -> str:
    """The name of the VLAN interface that is made on demand: ``eth0.100``, shortened where the kernel's 15 are over."""
    name = f"{parent}.{vlan}"
    return name if len(name) <= 15 else f"hl{hashlib.sha256(parent.encode()).hexdigest()[:6]}.{vlan}"
