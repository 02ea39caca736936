"""Connection tracking, NAT and filter chains that packets of links pass, in this namespace or in a container's.

A macvlan or virtual function goes past the host's bridges and rules. It does not go past those in the namespace that it
is in, and Docker puts some into the namespace of every container on a user-defined network.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

ON_THE_WAY = ("prerouting", "input", "output", "postrouting")
"""Hooks that a packet of a link passes in the namespace of its interface."""


class Chain(Struct, frozen=True, kw_only=True):
    """A base chain with rules. ``packets``: the sum of its rules' counters; None: none of them counts."""

    table: str
    name: str
    kind: str
    hook: str
    rules: int
    packets: int | None = None


class Ruleset(Struct, frozen=True, kw_only=True):
    """What nftables does in one namespace."""

    chains: tuple[Chain, ...] = ()
    nat: bool = False
    conntrack: bool = False
    """A rule looks at connections, or does NAT, which needs them."""
    docker_dns: bool = False
    """NAT rules for Docker's DNS server, 127.0.0.11."""


class TrackingMeasurement(Struct, frozen=True, kw_only=True):
    """Connection tracking, measured: nf_conntrack_count before and after ``flows`` new flows, several times."""

    to: str
    flows: int
    counts: tuple[tuple[int, int], ...]

    @property
    def on(self) -> bool:
        """Other traffic moves the count too, so most rounds decide."""
        return sum(after - before >= self.flows for before, after in self.counts) * 2 > len(self.counts)

    def __str__(self) -> str:
        before, after = self.counts[-1]
        return f"nf_conntrack_count went {before} → {after} with {self.flows} new flows to {self.to}"


class ContainerNamespace(Struct, frozen=True, kw_only=True):
    """This network namespace, or a container's in which a macvlan or virtual function is."""

    label: str
    enter: str
    """What stands before a command that shall run there, "" for this one."""
    interfaces: tuple[str, ...]
    """The macvlans and virtual functions in it."""
    ruleset: Ruleset | Unchecked
    tracking: tuple[TrackingMeasurement | Unchecked, ...] = ()
    """Measured in this namespace only, for each peer."""
    count: int | Unchecked = 0
    """nf_conntrack_count."""
    docker_resolver: bool = False
    """/etc/resolv.conf names Docker's DNS server, 127.0.0.11."""


class BridgeParent(Struct, frozen=True, kw_only=True):
    """A macvlan whose parent is a bridge."""

    macvlan: str
    bridge: str


class UserlandProxy(Struct, frozen=True, kw_only=True):
    """A docker-proxy process."""

    pid: int
    published: str
    target: str
    wanted_by: tuple[str, ...] = ()
    """Key paths of the configuration that go through it."""


class NetfilterFacts(Struct, frozen=True, kw_only=True):
    """Rules and connection tracking of this namespace and of containers'. ``bridge_nf``:
    net.bridge.bridge-nf-call-iptables, which means something only where the bridge is.
    """

    here: ContainerNamespace
    others: tuple[ContainerNamespace, ...] = ()
    bridge_parents: tuple[BridgeParent, ...] = ()
    bridge_nf: int | Unchecked = 0
    proxies: tuple[UserlandProxy, ...] = ()


def judge(facts: NetfilterFacts) -> Iterator[Line]:
    """All lines about rules and connection tracking."""
    for namespace in (facts.here, *facts.others):
        yield from _tracking(namespace)
    yield from _rules(facts.here)
    yield from _bridge_nf(facts)
    yield from (_userland_proxy(proxy) for proxy in facts.proxies)


def _tracking(namespace: ContainerNamespace) -> Iterator[Line]:
    rules = namespace.ruleset
    measured = [item for item in namespace.tracking if isinstance(item, TrackingMeasurement)]
    on = [item for item in measured if item.on]
    yield from (item for item in namespace.tracking if isinstance(item, Unchecked))
    dns = rules.docker_dns if isinstance(rules, Ruleset) else bool(on) and namespace.docker_resolver
    if dns and namespace.interfaces:
        yield _docker_dns(namespace, on)
    elif on:
        yield _tracked(namespace, on)
    else:
        yield from (Passed(f"not tracked: {item}") for item in measured)


def _docker_dns(namespace: ContainerNamespace, on: list[TrackingMeasurement]) -> Finding:
    rules = namespace.ruleset
    if isinstance(rules, Ruleset):
        read = "NAT rules for Docker's DNS server, 127.0.0.11, are in this namespace"
    else:
        read = "connections are tracked and /etc/resolv.conf names Docker's DNS server, 127.0.0.11"
    measured = str(on[0]) if on else None
    if measured is None and isinstance(namespace.count, int) and namespace.count:
        measured = f"nf_conntrack_count there is {namespace.count}"
    return Finding(
        name="docker-dns-conntrack",
        level="wrong",
        where=f"{namespace.label}: {', '.join(namespace.interfaces)}",
        read=read,
        cost="Docker makes them on every user-defined network, macvlan too; they switch connection tracking on for all "
        "packets of the container, although nothing else needs it",
        measured=measured,
        mend="docker run --network none ..., then hostlane net attach CONTAINER --config FILE --parent INTERFACE "
        "--address ADDRESS/PREFIX (FILE is the host's; a proxy in the container waits for it); or, for as long as it "
        f"runs and without Docker's DNS: {namespace.enter}nft delete table ip nat",
    )


def _tracked(namespace: ContainerNamespace, on: list[TrackingMeasurement]) -> Finding:
    sides = (("output", "daddr"), ("prerouting", "saddr"))
    hooks = [f"add chain inet hostlane {hook} {{ type filter hook {hook} priority raw; }}" for hook, _ in sides]
    notrack = [
        f"add rule inet hostlane {hook} {'ip6' if ':' in item.to else 'ip'} {side} {item.to} notrack"
        for item in on
        for hook, side in sides
    ]
    return Finding(
        name="tracked-links",
        level="wrong" if namespace.interfaces else "note",
        where=namespace.label,
        read="something in this namespace has switched connection tracking on",
        cost="every packet of a link looks up and updates an entry, and an idle link dies with its entry",
        measured="; ".join(str(item) for item in on),
        mend=f"nft '{'; '.join(('add table inet hostlane', *hooks, *notrack))}', or remove the rules that need "
        "connections",
    )


def _rules(namespace: ContainerNamespace) -> Iterator[Line]:
    rules = namespace.ruleset
    if isinstance(rules, Unchecked):
        yield rules
        return
    passed = [chain for chain in rules.chains if chain.hook in ON_THE_WAY]
    if not passed:
        yield Passed("no nftables rules on the way of a packet")
    elif namespace.interfaces:
        yield Finding(
            name="rules-on-links",
            level="note",
            where=", ".join(namespace.interfaces),
            read="; ".join(_chain(chain) for chain in passed),
            cost="every packet of a link is held against the first rules of each of these chains",
            mend="accept the links' port in the first rule of each chain that is needed, and delete the others",
        )
    else:
        yield Passed("; ".join(_chain(chain) for chain in passed))


def _chain(chain: Chain) -> str:
    counted = "" if chain.packets is None else f", {chain.packets} packets counted"
    return f"{chain.table} {chain.name} ({chain.kind}, {chain.hook}): {chain.rules} rules{counted}"


def _bridge_nf(facts: NetfilterFacts) -> Iterator[Line]:
    if not facts.bridge_parents:
        return
    if isinstance(facts.bridge_nf, Unchecked):
        yield Passed("br_netfilter is not loaded: frames of the bridge pass no rules")
        return
    for item in facts.bridge_parents:
        if facts.bridge_nf == 0:
            yield Passed(f"{item.macvlan} hangs on bridge {item.bridge}, whose frames pass no IP rules")
            continue
        yield Finding(
            name="bridge-parent-rules",
            level="wrong",
            where=item.macvlan,
            read=f"the parent of {item.macvlan} is bridge {item.bridge}, and net.bridge.bridge-nf-call-iptables = "
            f"{facts.bridge_nf}",
            cost="every frame that comes in for the macvlan passes the host's raw and nat PREROUTING first; "
            "conntrack -L shows nothing of it",
            mend="sysctl -w net.bridge.bridge-nf-call-iptables=0, or hang the macvlan on the interface itself",
        )


def _userland_proxy(proxy: UserlandProxy) -> Finding:
    wanted = f"; {', '.join(proxy.wanted_by)} goes through it" if proxy.wanted_by else ""
    return Finding(
        name="docker-proxy",
        level="wrong" if proxy.wanted_by else "note",
        where=f"published port {proxy.published}",
        read=f"docker-proxy, process {proxy.pid}, forwards {proxy.published} to {proxy.target}{wanted}",
        cost="what reaches the port over loopback is copied by one more process, behind bridge and NAT",
        mend="deliver to a Unix socket in a directory that the container mounts; or start dockerd with "
        "--userland-proxy=false",
    )
