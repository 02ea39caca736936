"""Settings without which a macvlan child is there and not used (sans-IO).

With arp_ignore 0, the kernel's default, an interface answers ARP for every address of its host: the parent for the
child's too, mostly first, so that peers send to the parent's MAC. With rp_filter 1 the child drops what the kernel
would answer through the parent, if both have addresses in one subnet. Links are bound to the child
(proxy/links/device.py), so both would cut them off.
"""

from __future__ import annotations

import ipaddress

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.netdev.observe.mark import InterfaceMark, vlan_name
from proxy.netdev.observe.networkstate import Ipv4Settings, effective
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.steps import SetSetting, SettingKey

KEYS: tuple[SettingKey, ...] = ("arp_ignore", "arp_announce", "rp_filter")
STRICT, LOOSE = 1, 2
OWN_ONLY, BEST = 1, 2
"""Values of rp_filter, arp_ignore and arp_announce."""


def plan_settings(draft: PlanDraft, name: str, wanted: Wanted, there: NetInterface | None) -> None:
    """Steps for a macvlan child that Hostlane made or makes; ``there``: as it is now, None if the plan makes it."""
    if not _has_v4(wanted):
        return
    now = effective(draft.world.settings, name if there else "default")
    if now is None:
        return
    if now.rp_filter == STRICT:
        _change(draft, name, "rp_filter", now.rp_filter, LOOSE, made=there is None)
    _answer_for_own(draft, name, now, made=there is None)


def shall_quiet(draft: PlanDraft, wanted: Wanted) -> str | None:
    """The interface below a macvlan child if that shall not answer ARP for others any more; None: it need not.

    It is the one setting of somebody else's interface that Hostlane changes. It does not where an address of this host
    may depend on it: one of the same subnet on lo or another interface, which is reached through this one.
    """
    below = _below(draft, wanted)
    if not _has_v4(wanted) or below is None or (draft.named(below) is None and below not in draft.made):
        return None
    now = effective(draft.world.settings, below if draft.named(below) else "default")
    if now is None or now.arp_ignore:
        return None
    if strangers := _dependent(draft, wanted, below):
        draft.note(f"{below}: goes on answering ARP for all addresses of this host, as {', '.join(strangers)} may need "
                   f"it; so links cannot be bound to a macvlan on it")  # fmt: skip
        return None
    return below


def quiet(draft: PlanDraft, below: str) -> None:
    """Steps after which an interface answers ARP for its own addresses alone."""
    made = draft.named(below) is None
    now = effective(draft.world.settings, "default" if made else below)
    if now is not None and (below, "arp_ignore") not in draft.set:
        draft.set.add((below, "arp_ignore"))
        _answer_for_own(draft, below, now, made=made)


def loud(draft: PlanDraft, below: str) -> None:
    """Steps after which an interface answers as it did before `quiet`, if it is still as that has left it."""
    now = draft.world.settings.get(below)
    if now is not None and (now.arp_ignore, now.arp_announce) == (OWN_ONLY, BEST):
        _change(draft, below, "arp_announce", BEST, 0)
        _change(draft, below, "arp_ignore", OWN_ONLY, 0)


def restored_settings(draft: PlanDraft, there: NetInterface) -> list[SetSetting]:
    """What brings the settings of an interface back after it was deleted and made again."""
    own, default = draft.world.settings.get(there.name), draft.world.settings.get("default")
    if own is None or default is None:
        return []
    return [
        SetSetting(link=there.name, key=key, value=getattr(own, key))
        for key in KEYS
        if getattr(own, key) != getattr(default, key)
    ]


def quieted(mark: InterfaceMark) -> bool:
    """Whether the parent of the macvlan child with this mark was made `quiet` for it."""
    return mark.original == QUIETED


QUIETED = "arp"
"""`InterfaceMark.original` of such a child: it has no name from before."""


def _answer_for_own(draft: PlanDraft, name: str, now: Ipv4Settings, *, made: bool) -> None:
    if not now.arp_ignore:
        _change(draft, name, "arp_ignore", 0, OWN_ONLY, made=made)
        if now.arp_announce < BEST:
            _change(draft, name, "arp_announce", now.arp_announce, BEST, made=made)


def _change(draft: PlanDraft, name: str, key: SettingKey, old: int, new: int, *, made: bool = False) -> None:
    """What the plan makes takes its settings with it when it is taken back."""
    undo = () if made else (SetSetting(link=name, key=key, value=old),)
    draft.do(SetSetting(link=name, key=key, value=new), *undo)


def _has_v4(wanted: Wanted) -> bool:
    return any("." in address for address in wanted.addresses)


def _below(draft: PlanDraft, wanted: Wanted) -> str | None:
    """The name of the interface that the child stands on."""
    parent = draft.named(wanted.parent) if wanted.parent else None
    if wanted.kind != "macvlan" or parent is None or wanted.vlan is None:
        return parent.name if parent is not None and wanted.kind == "macvlan" else None
    there = [found.name for found in draft.world.children(parent) if found.vlan_id == wanted.vlan]
    return there[0] if there else vlan_name(parent.name, wanted.vlan)


def _dependent(draft: PlanDraft, wanted: Wanted, below: str) -> list[str]:
    here = draft.named(below)
    subnets = [ipaddress.ip_interface(text).network for text in wanted.addresses if "." in text]
    family = {here.index, *(child.index for child in draft.world.children(here))} if here else set()
    if here is not None:
        subnets += [ipaddress.ip_interface(str(item)).network for item in draft.world.snapshot.addresses_of(here.index)]
    found = []
    for item in draft.world.snapshot.addresses:
        holder = draft.world.snapshot.at(item.interface)
        near = any(ipaddress.ip_address(item.address) in subnet for subnet in subnets)
        if near and "." in item.address and holder is not None and holder.index not in family:
            found.append(f"{item.address} on {holder.name}")
    return found
