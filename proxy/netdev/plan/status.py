"""How the interfaces of a configuration are now (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.netdev.observe import mark
from proxy.netdev.observe.records import NetInterface, NetSnapshot
from proxy.netdev.plan.steps import NetPlan

LINK_SCOPE = 253


class InterfaceState(Struct, frozen=True, kw_only=True):
    """One interface of the configuration."""

    name: str
    kind: str
    parent: str | None
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    problem: str | None = None
    """Why it carries nothing, or is not as configured; None: all is well."""


def states(host: str, wanted: Mapping[str, Wanted], snapshot: NetSnapshot, plan: NetPlan) -> list[InterfaceState]:
    """Those of the configuration, then what else bears the host's mark and should be gone.

    ``plan`` is what would make them as wanted, from the same snapshot.
    """
    left = [_left_over(host, there, wanted) for there in snapshot.interfaces]
    return [
        *(_state(name, item, snapshot, plan) for name, item in wanted.items()),
        *(found for found in left if found is not None),
    ]


def not_ready(name: str, snapshot: NetSnapshot) -> str | None:
    """Why nothing can be sent through the interface or bound to its addresses; None if it can."""
    there = snapshot.named(name)
    if there is None:
        return f"{name} does not exist"
    if not there.up:
        return f"{name} is down"
    if why := duplicate(name, snapshot):
        return why
    if not there.carrier or there.operstate == "lowerlayerdown":
        return _no_carrier(there, snapshot)
    for address in snapshot.addresses_of(there.index):
        # The kernel's own link-local address is none that anybody binds to.
        if address.tentative and address.scope != LINK_SCOPE:
            return f"{name} checks whether another machine has {address.address}"
    return None


def duplicate(name: str, snapshot: NetSnapshot) -> str | None:
    """The address of this interface that another machine on the segment has, in one line. Waiting does not help."""
    there = snapshot.named(name)
    for address in snapshot.addresses_of(there.index) if there else ():
        if address.duplicate:
            return f"{name}: another machine on the segment has {address.address}"
    return None


def _no_carrier(there: NetInterface, snapshot: NetSnapshot) -> str:
    below = snapshot.parent_of(there) if there.kind in ("macvlan", "vlan") else None
    if below is None:
        return f"{there.name} has no carrier; look at its cable and switch port"
    if not below.up:
        return f"{there.name} has no carrier, because its parent {below.name} is down: ip link set {below.name} up"
    if below.kind in ("macvlan", "vlan"):
        return f"{there.name}: {_no_carrier(below, snapshot)}"
    return f"{there.name} has no carrier, because its parent {below.name} has none; look at its cable and switch port"


def _left_over(host: str, there: NetInterface, wanted: Mapping[str, Wanted]) -> InterfaceState | None:
    """The state of an interface that bears the mark and should be gone; None if it may stay: VLAN interfaces, which go
    with those that stand on them, and macvlan children of containers.
    """
    found = mark.read(there.alias)
    if found is None or found.host != host or found.name in wanted or there.kind == "vlan":
        return None
    if found.container and there.kind == "macvlan":
        return None
    why = f"container {found.container} has it no more" if found.container else "not in the configuration any more"
    return InterfaceState(
        name=there.name,
        kind=there.kind or "vf",
        parent=None,
        mac=there.mac,
        mtu=there.mtu,
        addresses=(),
        problem=f"{there.name}: {why}; apply or remove takes it away",
    )


def _state(name: str, item: Wanted, snapshot: NetSnapshot, plan: NetPlan) -> InterfaceState:
    there = snapshot.named(name)
    problems = [text for text in plan.problems if text.startswith(f"{name}: ")]
    changes = sum(str(step.do).startswith(f"{name}: ") for step in plan.steps)
    if there is None:
        problem = problems[0] if problems else f"{name}: not made yet"
        return InterfaceState(
            name=name, kind=item.kind, parent=item.parent, mac="", mtu=0, addresses=(), problem=problem
        )
    differs = f"{name}: differs from the configuration in {changes} point{'s' * (changes != 1)}" if changes else None
    return InterfaceState(
        name=name,
        kind=item.kind,
        parent=item.parent,
        mac=there.mac,
        mtu=there.mtu,
        addresses=tuple(str(address) for address in snapshot.addresses_of(there.index) if address.scope != LINK_SCOPE),
        problem=problems[0] if problems else differs or not_ready(name, snapshot),
    )
