"""The way to each peer: through which interface, and whether this host reaches its own macvlan children."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

BRIDGE_MODE = "bridge"


class PeerPath(Struct, frozen=True, kw_only=True):
    """How a packet to a peer would leave this host."""

    peer: str
    name: str
    """The peer's address as the configuration has it."""
    address: str | None = None
    """None: the name does not resolve; ``problem`` says why."""
    problem: str = ""
    interface: str | None = None
    """None: there is no route."""
    kind: str = ""
    """As netlink says it (macvlan, veth, bridge...), "vf", or "" for hardware."""
    offloaded: bool = False
    """A macvlan or a virtual function: past the host's bridges and NAT."""
    up: bool = True
    via: str | None = None
    """The next router; None on the segment itself."""
    local: bool = False
    """The address is one of this host's own."""


class OffloadedInterface(Struct, frozen=True, kw_only=True):
    """A macvlan or virtual function of this namespace."""

    interface: str
    kind: str
    addresses: tuple[str, ...] = ()


class ChildAddress(Struct, frozen=True, kw_only=True):
    """An address of a macvlan in another namespace on this machine, whose parent is here."""

    label: str
    address: str
    parent: str
    wanted_by: tuple[str, ...] = ()
    """Key paths of the configuration that name the address."""
    interface: str | None = None
    """Through which this host would send to it; None: no route."""
    mode: str | None = None
    """The macvlan mode of ``interface``, if it is one."""


class PathFacts(Struct, frozen=True, kw_only=True):
    """The ways to the peers and to macvlan children. ``listen``: links.listen, if there is a configuration;
    ``listening``: the interface that has that address.
    """

    ways: tuple[PeerPath, ...] = ()
    offloaded: tuple[OffloadedInterface, ...] = ()
    children: tuple[ChildAddress, ...] | Unchecked = ()
    listen: str | None = None
    listening: str | None = None


def judge(facts: PathFacts) -> Iterator[Line]:
    """All lines about the ways to the peers."""
    if facts.listen is not None:
        yield _listen(facts)
    for way in facts.ways:
        yield _way(way, facts.offloaded)
    if isinstance(facts.children, Unchecked):
        yield facts.children
    else:
        for child in facts.children:
            yield _child(child)
    if not facts.ways:
        yield Unchecked("ways to peers", "no peers are known; give --config FILE")


def _listen(facts: PathFacts) -> Line:
    if facts.listening is not None:
        return Passed(f"links.listen {facts.listen} is an address of {facts.listening}")
    return Finding(
        name="no-link-address",
        level="wrong",
        where="links.listen",
        read=f"no interface has {facts.listen}",
        cost="the proxy cannot start, or starts and no peer reaches it",
        mend=f"ip address add {facts.listen}/PREFIX dev INTERFACE, or another links.listen",
    )


def _way(way: PeerPath, offloaded: tuple[OffloadedInterface, ...]) -> Line:
    where = f"peer {way.peer}"
    if way.address is None:
        return Finding(
            name="unresolved-peer", level="wrong", where=where, read=f"{way.name} does not resolve: {way.problem}",
            cost="no link to this peer can be made", mend=f"write an IP address as peers.{way.peer}.address",
        )  # fmt: skip
    if way.interface is None:
        return Finding(
            name="no-route", level="wrong", where=where, read=f"there is no route to {way.address}",
            cost="no link to this peer can be made", mend=f"ip route add {way.address} dev INTERFACE",
        )  # fmt: skip
    if way.local:
        return Finding(
            name="peer-is-here", level="note", where=where, read=f"{way.address} is an address of this host",
            cost="right where two proxies share a machine; elsewhere the proxy dials itself",
            mend=f"write that host's own address as peers.{way.peer}.address",
        )  # fmt: skip
    if not way.up:
        return Finding(
            name="interface-down", level="wrong", where=where,
            read=f"the route to {way.address} leaves through {way.interface}, which is down or has no carrier",
            cost="no link to this peer can be made", mend=f"ip link set {way.interface} up; check the cable",
        )  # fmt: skip
    if not way.offloaded and (way.kind == "bridge" or (way.kind == "veth" and way.via)):
        return _bridged(way, offloaded)
    router = f" and router {way.via}" if way.via else ""
    return Passed(f"{way.address} ({way.peer}) through {way.interface} ({way.kind or 'hardware'}){router}")


def _bridged(way: PeerPath, offloaded: tuple[OffloadedInterface, ...]) -> Finding:
    beyond = f" and {way.via}, which is a bridge's address as a rule" if way.kind == "veth" else ""
    cost = "every packet pays a bridge, NAT, connection tracking and filter chains"
    read = f"the route to {way.address} leaves through {way.interface} ({way.kind}){beyond}"
    if not offloaded:
        return Finding(
            name="bridge-on-the-way", level="note", where=f"peer {way.peer}", read=f"{read}; no macvlan or VF is here",
            cost=cost, mend="give this host a macvlan or VF on the segment of its peers",
        )  # fmt: skip
    best = offloaded[0]
    known = ", ".join(
        f"{item.interface} ({item.kind}, {' '.join(item.addresses) or 'no address'})" for item in offloaded
    )
    return Finding(
        name="bridged-route",
        level="wrong",
        where=f"peer {way.peer}",
        read=f"{read}, although there is {known}",
        cost=f"{cost}, silently",
        mend=f"ip route replace {way.address} dev {best.interface}",
    )


def _child(child: ChildAddress) -> Line:
    shielded = child.mode is not None and child.mode != BRIDGE_MODE
    if child.mode == BRIDGE_MODE:
        return Passed(f"{child.address} ({child.label}) is reached through {child.interface}, a macvlan beside it")
    if child.interface not in (None, child.parent) and not shielded:
        return Passed(f"{child.address} ({child.label}) is reached through {child.interface}")
    wanted = f"; {', '.join(child.wanted_by)} names it" if child.wanted_by else ""
    way = f"{child.interface}, a macvlan in mode {child.mode}" if shielded else f"{child.parent}, its own parent"
    if child.interface is None:
        way = "no route at all"
    return Finding(
        name="unreachable-child",
        level="wrong" if child.wanted_by else "note",
        where=child.label,
        read=f"{child.address} is a macvlan child of {child.parent}, and the way to it is {way}{wanted}",
        cost="a parent and its macvlan children cannot reach each other: the host's frames to the child leave through "
        "the cable and never come back",
        mend=f"ip link add hostlane-shim link {child.parent} type macvlan mode bridge; ip link set hostlane-shim up; "
        f"ip route add {child.address} dev hostlane-shim",
    )
