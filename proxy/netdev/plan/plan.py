"""From what is configured and what is there to the steps between them (sans-IO).

Order: what is not wanted any more, or not as it is, goes first (its MAC and addresses are free then). Then each
interface in the order of the configuration: parent, interface, mark, up, addresses, routes, rules. Undone, the same
backwards.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.interfaces import InterfaceConfig as Wanted
from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import PROTOCOL
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.addressing import drop_ours, plan_addressing
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.links import delete_link, fits, plan_macvlan, set_up
from proxy.netdev.plan.settings import loud, plan_settings, quieted
from proxy.netdev.plan.sourcerules import add_rules, drop_rules, refuse_taken_table
from proxy.netdev.plan.steps import NetPlan
from proxy.netdev.plan.vfs import give_back, place, plan_vf


def plan(host: str, wanted: Mapping[str, Wanted], world: NetworkState) -> NetPlan:
    """What would make the interfaces of this host as ``wanted``; no steps if they are."""
    draft = PlanDraft(host, world)
    drop_rules(draft, wanted)
    _leave_out(draft, wanted)
    for name, interface in wanted.items():
        _plan_interface(draft, name, interface, wanted)
    return draft.plan()


def removal(host: str, world: NetworkState) -> NetPlan:
    """What would take away everything that bears this host's mark, and what Hostlane added to other interfaces."""
    return plan(host, {}, world)


def _plan_interface(draft: PlanDraft, name: str, wanted: Wanted, all_wanted: Mapping[str, Wanted]) -> None:
    match wanted.kind:
        case "macvlan":
            there = plan_macvlan(draft, name, wanted)
            plan_settings(draft, name, wanted, there)
            set_up(draft, name, there)
        case "existing":
            there = _existing(draft, name, wanted)
            if there is None:
                return
        case "vf":
            there = plan_vf(draft, name, wanted, all_wanted)
            set_up(draft, name, there)
    refuse_taken_table(draft, name, wanted)
    plan_addressing(draft, name, wanted, there, table=wanted.source_table)
    add_rules(draft, name, wanted)


def _existing(draft: PlanDraft, name: str, wanted: Wanted) -> NetInterface | None:
    there = draft.named(name)
    if there is None:
        names = ", ".join(sorted(found.name for found in draft.world.snapshot.interfaces)) or "none"
        draft.problem(f"{name}: does not exist; there are: {names}")
    elif not there.up and wanted.routes:
        draft.problem(f"{name}: is down, so it can have no routes, and not Hostlane's to set up: ip link set {name} up")
    return there


def _leave_out(draft: PlanDraft, wanted: Mapping[str, Wanted]) -> None:
    """Steps for what is there and not wanted any more, or can only become what is wanted by being made again."""
    for there, found in draft.own():
        if there.kind == "vlan" or _is_wanted(draft, there, wanted.get(found.name)):
            continue
        if there.kind != "macvlan":
            # Also a function that a container had: it is here because the container is gone.
            give_back(draft, there, found)
        elif found.container is None:
            # In a container's own namespace, what the host gave to it is not this plan's to delete.
            delete_link(draft, there)
            below = draft.world.snapshot.parent_of(there)
            if quieted(found) and below is not None and not _is_kept(below, wanted):
                loud(draft, below.name)
    for there, _ in draft.own():
        if there.kind == "vlan" and not _is_needed(draft, there, wanted):
            _delete_vlan(draft, there)
    for there in draft.world.snapshot.interfaces:
        named = wanted.get(there.name)
        if mark.read(there.alias) is None and (named is None or named.kind != "existing") and _has_ours(draft, there):
            drop_ours(draft, there)


def _is_wanted(draft: PlanDraft, there: NetInterface, item: Wanted | None) -> bool:
    if item is None:
        return False
    if there.kind == "macvlan":
        return fits(draft, there, item)
    where = place(draft, there)
    return item.kind == "vf" and where is not None and where[0] == item.parent


def _is_kept(below: NetInterface, wanted: Mapping[str, Wanted]) -> bool:
    """Whether the settings of a macvlan's parent stay: others stand on it, or it is Hostlane's own VLAN interface."""
    return mark.read(below.alias) is not None or any(
        item.kind == "macvlan" and (item.parent == below.name if item.vlan is None else item.vlan == below.vlan_id)
        for item in wanted.values()
    )


def _is_needed(draft: PlanDraft, vlan: NetInterface, wanted: Mapping[str, Wanted]) -> bool:
    parent = draft.world.snapshot.at(vlan.parent)
    return parent is not None and any(
        (item.kind, item.parent, item.vlan) == ("macvlan", parent.name, vlan.vlan_id) for item in wanted.values()
    )


def _delete_vlan(draft: PlanDraft, vlan: NetInterface) -> None:
    """Whoever else stands on it would go with it."""
    staying = [child.name for child in draft.world.children(vlan) if child.index not in draft.gone]
    elsewhere = set(vlan.unicast) - {child.mac for child in draft.world.children(vlan)}
    if not staying and not elsewhere:
        delete_link(draft, vlan)
        return
    users = ", ".join([*staying, *(f"a container's with mac {mac}" for mac in sorted(elsewhere))])
    draft.note(f"{vlan.name}: stays, because others stand on it: {users}")


def _has_ours(draft: PlanDraft, there: NetInterface) -> bool:
    snapshot = draft.world.snapshot
    marked = {address.interface for address in snapshot.addresses if address.protocol == PROTOCOL}
    return there.index in marked | {route.interface for route in snapshot.routes if route.protocol == PROTOCOL}
