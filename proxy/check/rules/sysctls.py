"""Kernel settings that hurt pooled links, or callers of Unix sockets, or a host with two interfaces in one subnet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

SLOW_START = "net.ipv4.tcp_slow_start_after_idle"
SOMAXCONN = "net.core.somaxconn"
KEEPALIVE = "net.ipv4.tcp_keepalive_time"
NAMES = (SLOW_START, SOMAXCONN, KEEPALIVE)
PER_INTERFACE = ("rp_filter", "arp_ignore")

BACKLOG = 4096
"""What a Unix socket of the proxy asks for (`control.base.system.unixsock`), and the kernel's default since
Linux 5.4."""
IPVS_TIMEOUT_S = 900
"""IPVS forgets an idle connection after so long; other NAT and firewalls are in the same range."""

STRICT = 1


class InterfaceAddress(Struct, frozen=True):
    """An IPv4 address of this host, as ``10.77.0.1/24``."""

    interface: str
    address: str


class SysctlFacts(Struct, frozen=True, kw_only=True):
    """The kernel's settings and what they matter for. ``values``: sysctls by full name; those of `PER_INTERFACE` for
    each interface and for ``all``.
    """

    values: dict[str, int | Unchecked]
    addresses: tuple[InterfaceAddress, ...]
    parents: dict[str, str] = {}
    """Of macvlan interfaces whose parent is in this namespace too."""


def per_interface(key: str, interface: str) -> str:
    """The full name of one of `PER_INTERFACE`."""
    return f"net.ipv4.conf.{interface}.{key}"


def judge(facts: SysctlFacts) -> Iterator[Line]:
    """All lines about sysctls."""
    yield from (value for value in facts.values.values() if isinstance(value, Unchecked))
    if (value := _known(facts, SLOW_START)) is not None:
        yield _slow_start(value) if value else Passed(f"{SLOW_START} = 0")
    if (value := _known(facts, SOMAXCONN)) is not None:
        yield _somaxconn(value) if value < BACKLOG else Passed(f"{SOMAXCONN} = {value}")
    if (value := _known(facts, KEEPALIVE)) is not None:
        yield _keepalive(value) if value > IPVS_TIMEOUT_S else Passed(f"{KEEPALIVE} = {value}")
    shared = shared_subnets(facts.addresses)
    for subnet, interfaces in shared.items():
        yield from _rp_filter(facts, subnet, interfaces)
    for why, interfaces in one_segment(shared, facts.parents).items():
        yield from _arp_ignore(facts, why, interfaces)


def shared_subnets(addresses: tuple[InterfaceAddress, ...]) -> dict[str, list[str]]:
    """Subnets in which more than one interface has an address, with those interfaces."""
    subnets: dict[str, list[str]] = {}
    for item in addresses:
        network = ipaddress.ip_interface(item.address).network
        members = subnets.setdefault(str(network), [])
        if network.num_addresses > 1 and not network.is_loopback and item.interface not in members:
            members.append(item.interface)
    return {subnet: members for subnet, members in subnets.items() if len(members) > 1}


def one_segment(shared: dict[str, list[str]], parents: dict[str, str]) -> dict[str, list[str]]:
    """Interfaces that hear the same ARP requests, by how that is known.

    A macvlan hears every broadcast that its parent hears, whatever their addresses.
    """
    found = {f"share {subnet}": members for subnet, members in shared.items()}
    for parent in dict.fromkeys(parents.values()):
        members = [parent, *(child for child, its in parents.items() if its == parent)]
        if not any(set(members) <= set(those) for those in shared.values()):
            found[f"are one segment ({', '.join(members[1:])} on {parent})"] = members
    return found


def _known(facts: SysctlFacts, name: str) -> int | None:
    value = facts.values.get(name)
    return value if isinstance(value, int) else None


def _effective(facts: SysctlFacts, key: str, interface: str) -> int:
    """The kernel takes the greater of ``all`` and the interface's own (ip-sysctl.rst)."""
    names = (per_interface(key, "all"), per_interface(key, interface))
    return max(_known(facts, name) or 0 for name in names)


def _slow_start(value: int) -> Finding:
    return Finding(
        name="slow-start-after-idle",
        level="note",
        where=SLOW_START,
        read=f"{SLOW_START} = {value} (the kernel's default)",
        cost="a link that was idle for one retransmission timeout (200 ms or more) may send only 10 segments at once "
        "again: a burst after a pause takes more round trips than the link needs",
        mend=f"sysctl -w {SLOW_START}=0",
    )


def _somaxconn(value: int) -> Finding:
    return Finding(
        name="small-backlog",
        level="wrong",
        where=SOMAXCONN,
        read=f"{SOMAXCONN} = {value}",
        cost=f"the queue of every upstream's socket is cut from {BACKLOG} to {value} connections: in a burst, a "
        "non-blocking caller of a full Unix socket gets EAGAIN, which most clients take for a failure",
        mend=f"sysctl -w {SOMAXCONN}={BACKLOG}",
    )


def _keepalive(value: int) -> Finding:
    return Finding(
        name="late-keepalive",
        level="note",
        where=KEEPALIVE,
        read=f"{KEEPALIVE} = {value} s",
        cost=f"a direct connection that idles longer than a NAT or IPVS on the way remembers it ({IPVS_TIMEOUT_S} s) "
        f"is dead, and its owner hears of it after {value} s; links are pinged and do not depend on this",
        mend=f"sysctl -w {KEEPALIVE}=600",
    )


def _rp_filter(facts: SysctlFacts, subnet: str, interfaces: list[str]) -> Iterator[Finding]:
    strict = [name for name in interfaces if _effective(facts, "rp_filter", name) == STRICT]
    if strict:
        yield Finding(
            name="strict-rp-filter",
            level="wrong",
            where=", ".join(strict),
            read=f"rp_filter is 1 (strict) on {', '.join(strict)}, and {', '.join(interfaces)} share {subnet}",
            cost="what arrives on one of them while the route back leaves through the other is dropped without a word",
            mend="; ".join(f"sysctl -w {per_interface('rp_filter', name)}=2" for name in strict)
            + f" (the greater of this and {per_interface('rp_filter', 'all')} counts)",
        )


def _arp_ignore(facts: SysctlFacts, why: str, interfaces: list[str]) -> Iterator[Finding]:
    addressed = {item.interface for item in facts.addresses}
    lax = [
        name for name in interfaces if _effective(facts, "arp_ignore", name) == 0 and addressed & {*interfaces} - {name}
    ]
    if lax:
        yield Finding(
            name="arp-flux",
            level="wrong",
            where=", ".join(lax),
            read=f"arp_ignore is 0 on {', '.join(lax)}, and {', '.join(interfaces)} {why}",
            cost="each of them answers ARP for the addresses of all: chance decides whether a peer's frames come in "
            "through the macvlan or through its parent with everything that is attached there",
            mend="; ".join(
                f"sysctl -w {per_interface('arp_ignore', name)}=1 {per_interface('arp_announce', name)}=2"
                for name in lax
            ),
        )
