"""The way to each peer: through which interface, and whether this host reaches its own macvlan children."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

BRIDGE_MODE = "bridge"
RULE_TABLE = 7600
"""A routing table that nobody else uses, by the number of the links' port."""


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
    unrouted: str = ""
    """The interface that links are bound to, if no route to the address goes through it."""
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


class SourceUse(Struct, frozen=True, kw_only=True):
    """An address that the configuration has connections to a service come from, and the interface that has it."""

    key: str
    address: str
    interface: str | None


class LinkUse(Struct, frozen=True, kw_only=True):
    """The interface that packets to a peer leave through. ``up``: those of a link that is up; otherwise, of one that a
    proxy started now would make. ``bound``: the link's socket is bound to an interface.
    """

    peer: str
    address: str
    interface: str
    up: bool
    bound: bool = False


class PathFacts(Struct, frozen=True, kw_only=True):
    """The ways to the peers and to macvlan children. ``listen``: links.listen, if there is a configuration;
    ``listening``: the interface that has that address.
    """

    ways: tuple[PeerPath, ...] = ()
    offloaded: tuple[OffloadedInterface, ...] = ()
    children: tuple[ChildAddress, ...] | Unchecked = ()
    listen: str | None = None
    listening: str | None = None
    lent: str = ""
    """The setting that lets the proxy listen there though no interface has the address."""
    missing: str = ""
    """Why the proxy waits for the address, or for the interface that is named."""
    meant: str | None = None
    """The interface that links are meant to go through; None: any."""
    subnet: str = ""
    """Of `listen` there."""
    used: tuple[LinkUse, ...] | Unchecked = ()
    in_the_way: str = ""
    """Why a proxy cannot bind its links to that interface, and in ``remedy`` the command that helps."""
    remedy: str = ""
    sources: tuple[SourceUse, ...] = ()
    more: tuple[Unchecked, ...] = ()
    """Peers that were not looked at."""
    configured: bool = False
    """Whether there is a configuration; without one no peers can be known."""
    elsewhere: str = ""
    """Another namespace of this machine that has `listen`, and in ``enter`` what stands before a command there."""
    enter: str = ""


def judge(facts: PathFacts) -> Iterator[Line]:
    """All lines about the ways to the peers."""
    if facts.elsewhere:
        yield _other_namespace(facts)
        return
    if facts.listen is not None:
        yield _lent(facts) if facts.lent else _listen(facts)
    for way in facts.ways:
        yield _way(way, facts.offloaded)
    if isinstance(facts.used, Unchecked):
        yield facts.used
    elif facts.meant is not None:
        yield from _uses(facts, facts.meant, facts.used)
    if isinstance(facts.children, Unchecked):
        yield facts.children
    else:
        for child in facts.children:
            yield _child(child)
    for source in facts.sources:
        yield _source(source)
    yield from facts.more
    if not facts.ways and not facts.more:
        yield Unchecked("ways to peers", "no peers are known" + ("" if facts.configured else "; give --config FILE"))


def _listen(facts: PathFacts) -> Line:
    if facts.listening is not None and not facts.missing:
        return Passed(f"links.listen {facts.listen} is an address of {facts.listening}")
    return Finding(
        name="no-link-address",
        level="wrong",
        where="links.listen",
        read=facts.missing or f"no interface has {facts.listen}",
        cost="no peer reaches this host, and it reaches none; the proxy waits for the address",
        # Never as a command to be typed: it may be another machine's, or a container's that only root could look into.
        mend="hostlane net apply, if interfaces: has it; if the configuration is a container's: run this check there "
        f"(nsenter -t PID -n); otherwise another links.listen, or {facts.listen} for an interface of this host once "
        "nobody else on the segment has it",
    )


def _lent(facts: PathFacts) -> Finding:
    return Finding(
        name="lent-link-address",
        level="note",
        where="links.listen",
        read=f"no interface has {facts.listen}, and {facts.lent} lets the proxy listen there all the same",
        cost="right where something moves the address between hosts (VRRP) and another one has it now; otherwise no "
        "peer reaches this host",
        mend=f"nothing, or sysctl -w {facts.lent}=0, so that a missing address is a fault",
    )


def _other_namespace(facts: PathFacts) -> Finding:
    return Finding(
        name="other-namespace",
        level="note",
        where="links.listen",
        read=f"{facts.listen} is not here but in the network namespace of {facts.elsewhere}, so the configuration is "
        "for that one",
        cost="nothing was looked at that depends on the way to peers: from here it is another",
        mend=f"{facts.enter}hostlane check --config FILE",
    )


def _uses(facts: PathFacts, meant: str, used: tuple[LinkUse, ...]) -> Iterator[Line]:
    elsewhere = [use for use in used if use.interface != meant]
    for use in used:
        if use not in elsewhere and use.up:
            yield Passed(f"the link to {use.address} ({use.peer}) leaves through {meant}")
    for use in elsewhere:
        when = "the link to" if use.up else "a link to"
        why = f"; {facts.in_the_way}" if facts.in_the_way else "; its socket is not bound to it" if use.up else ""
        yield Finding(
            name="links-elsewhere",
            level="wrong",
            where=f"peer {use.peer}",
            read=f"{when} {use.address} leaves through {use.interface}, and links.listen {facts.listen} is an address "
            f"of {meant}{why}",
            cost=f"{meant} is there and not used: every packet pays what is attached to {use.interface}",
            mend=_to_own_interface(facts, meant),
        )


def _to_own_interface(facts: PathFacts, meant: str) -> str:
    if facts.remedy:
        return f"{facts.remedy} (the proxy binds new links by itself then; those that are up when it is started again)"
    six = " -6" if ":" in str(facts.listen) else ""
    return (
        f"ip{six} route replace {facts.subnet} dev {meant} table {RULE_TABLE}; ip{six} rule add from {facts.listen} "
        f"lookup {RULE_TABLE} (or source_table: {RULE_TABLE} in interfaces:, or start the proxy again: from Linux 5.7 "
        f"on it binds its links to {meant} by itself)"
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
    if way.unrouted:
        return Finding(
            name="no-route", level="wrong", where=where,
            read=f"there is no route to {way.address} through {way.unrouted}, which links are bound to",
            cost="no link to this peer can be made, unless it is a neighbour there",
            mend=f"ip route replace {way.address} dev {way.unrouted} (via ROUTER, if one is in between)",
        )  # fmt: skip
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


def _source(source: SourceUse) -> Line:
    if source.interface is not None:
        return Passed(f"{source.key} {source.address} is an address of {source.interface}")
    return Finding(
        name="no-source-address",
        level="wrong",
        where=source.key,
        read=f"no interface has {source.address}",
        cost="connections to the service come from the other addresses there, with their ports only; where there are "
        "none, each call ends as local_shortage",
        mend="give it to an interface of this host, if nobody else on the segment has it, or take it off the list",
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
