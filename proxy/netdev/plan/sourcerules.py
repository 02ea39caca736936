"""Rules of the kernel's routing policy (ip-rule(8)): what comes from an interface's addresses goes by a routing table
of its own, in which that interface is the way (sans-IO).

For links where sockets cannot be bound to the interface (proxy/links/device.py). The routes in the table are part of
the interface's addressing (proxy/netdev/plan/addressing.py); a rule belongs to no interface, and stays when one goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.interfaces import InterfaceConfig as Wanted
from proxy.config.netvalues import AUTO
from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import PROTOCOL
from proxy.netdev.observe.records import SourceRule
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.steps import SetRule


def drop_rules(draft: PlanDraft, wanted: Mapping[str, Wanted]) -> None:
    """Steps for Hostlane's rules that are not wanted any more. They come first: nothing is to be sent into a table that
    is about to be emptied.
    """
    keys = {key for interface in wanted.values() for key in _wanted(interface)}
    for rule in draft.world.snapshot.rules:
        if rule.protocol == PROTOCOL and (rule.source, rule.table) not in keys and not _is_another_host_s(draft, rule):
            drop = SetRule(link=_holder(draft, rule) or "rules", source=rule.source, table=rule.table, present=False)
            draft.do(drop, SetRule(link=drop.link, source=rule.source, table=rule.table))


def add_rules(draft: PlanDraft, name: str, wanted: Wanted) -> None:
    """Steps for the rules of one interface. Comes behind its routes."""
    there = {(rule.source, rule.table) for rule in draft.world.snapshot.rules}
    for source, table in _wanted(wanted):
        if (source, table) not in there:
            add = SetRule(link=name, source=source, table=table)
            draft.do(add, SetRule(link=name, source=source, table=table, present=False))


def refuse_taken_table(draft: PlanDraft, name: str, wanted: Wanted) -> None:
    """A table in which somebody else has routes is theirs."""
    for route in draft.world.snapshot.routes:
        if route.table == wanted.source_table and route.protocol != PROTOCOL:
            found = f"routing table {route.table} has a route that is not Hostlane's, to {route.to}"
            draft.problem(f"{name}: {found}; delete it (ip route flush table {route.table}) or choose another table")


def _wanted(interface: Wanted) -> list[tuple[str, int]]:
    if interface.source_table is None:
        return []
    return [(text.partition("/")[0], interface.source_table) for text in interface.addresses if text != AUTO]


def _holder(draft: PlanDraft, rule: SourceRule) -> str:
    """The name of the interface that has the address; empty if none has."""
    holders = [found.interface for found in draft.world.snapshot.addresses if found.address == rule.source]
    interface = draft.world.snapshot.at(holders[0]) if holders else None
    return interface.name if interface else ""


def _is_another_host_s(draft: PlanDraft, rule: SourceRule) -> bool:
    """Whether the address is on an interface that a proxy of another name has made in this namespace."""
    interface = draft.world.snapshot.named(_holder(draft, rule))
    found = mark.read(interface.alias) if interface else None
    return found is not None and found.host != draft.host
