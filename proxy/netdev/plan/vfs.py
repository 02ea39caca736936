"""Virtual functions: one is chosen, set up on its parent and by itself, and given back as it was (sans-IO).

The function's own MAC is set before the one on the parent: a driver such as igb refuses the function any MAC, even the
same one, once the parent has fixed it. Afterwards the container can no longer change it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.netdev.observe.mark import InterfaceMark
from proxy.netdev.observe.networkstate import VfDevice
from proxy.netdev.observe.records import NO_MAC, NetInterface, VirtualFunction
from proxy.netdev.plan.addressing import drop_ours
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.links import check_mac, may_use, wanted_mac
from proxy.netdev.plan.steps import Key, Link, SetLink, SetVf, SetVfCount, VfKey, VfLink

DEFAULTS = VirtualFunction(index=0, spoof_check=True, trust=False)
"""A function that nobody has set up, as drivers make it."""


def plan_vf(draft: PlanDraft, name: str, wanted: Wanted, all_wanted: Mapping[str, Wanted]) -> NetInterface | None:
    """Steps that take or change the function. Returns its interface as it is if it is ours already."""
    there = draft.named(name)
    if not may_use(draft, name, there) or not is_vf_parent(draft, name, str(wanted.parent)):
        return None
    where = place(draft, there) if there else None
    if where:
        draft.taken_vfs.add(where)
    link = VfLink(*where) if where else choose_vf(draft, name, name, wanted, all_wanted)
    if link is not None:
        set_up_vf(draft, name, wanted, link, wanted_mac(draft.host, name, wanted))
    return there


def is_vf_parent(draft: PlanDraft, name: str, parent: str) -> bool:
    """Whether the device can have virtual functions. Notes a problem if not."""
    if parent in draft.world.vf_parents:
        return True
    found = "has no virtual functions" if draft.named(parent) else "does not exist"
    able = ", ".join(sorted(draft.world.vf_parents)) or "no interface here"
    draft.problem(f"{name}: parent {parent} {found}; {able} can have them (sriov_totalvfs in sysfs)")
    return False


def place(draft: PlanDraft, there: NetInterface) -> tuple[str, int] | None:
    """Which function of which parent has this interface."""
    for name, parent in draft.world.vf_parents.items():
        for device in parent.devices:
            if device.interface == there.name:
                return name, device.index
    return None


def give_back(draft: PlanDraft, there: NetInterface, mark: InterfaceMark) -> None:
    """Steps that leave the function as it was, free for others."""
    where = place(draft, there)
    if where is None:
        draft.note(f"{there.name}: is marked {there.alias} and is no virtual function; it stays")
        return
    parent, vf = where
    link = VfLink(parent, vf)
    drop_ours(draft, there)
    if there.up:
        _change(draft, there.name, "state", "down", "up")
    aims: dict[VfKey, str | int | bool] = {"mac": NO_MAC, "vlan": 0, "spoof_check": True, "trust": False, "max_rate": 0}
    _set_all(draft, link, _known(draft, link), aims)
    if mark.original_mac and mark.original_mac != there.mac:
        _change(draft, link, "mac", mark.original_mac, there.mac)
    original = mark.original or f"{parent}v{vf}"
    if original != there.name and draft.world.snapshot.named(original) is None:
        _change(draft, link, "name", original, there.name)
    _change(draft, link, "alias", "", there.alias)
    draft.gone.add(there.index)
    _lower_count(draft, parent, mark)


def _lower_count(draft: PlanDraft, name: str, mark: InterfaceMark) -> None:
    """As many functions as before, if none of them is used by anybody."""
    parent = draft.world.vf_parents[name]
    before, now = mark.vfs_before, len(parent.devices)
    if before is None or before >= now or any(why_taken(draft, name, device) for device in parent.devices):
        return
    macs = {device.index: _interface_of(draft, VfLink(name, device.index)) for device in parent.devices}
    draft.do(
        SetVfCount(parent=name, count=before),
        SetVfCount(parent=name, count=now),
        *(SetLink(link=VfLink(name, vf), key="mac", value=found.mac) for vf, found in macs.items() if found),
    )


def why_taken(draft: PlanDraft, parent: str, device: VfDevice) -> str | None:
    """Who has this function; None if it is free: visible here, down, without mark, master, addresses or children."""
    if (parent, device.index) in draft.taken_vfs:
        return "taken by another interface of the configuration"
    if device.interface is None:
        return f"bound to {device.driver}" if device.driver else "in another namespace or without a driver"
    there = draft.world.snapshot.named(device.interface)
    if there is None:
        return "in another namespace"
    if there.index in draft.gone:
        return None
    reasons = {
        f"is marked {there.alias}": bool(there.alias),
        "is up": there.up,
        "is a port of another interface": there.master is not None,
        "has addresses": bool(draft.world.snapshot.addresses_of(there.index)),
        "has children": bool(draft.world.children(there)),
    }
    return next((f"({there.name}) {why}" for why, true in reasons.items() if true), None)


def choose_vf(
    draft: PlanDraft, name: str, mark: str, wanted: Wanted, all_wanted: Mapping[str, Wanted]
) -> VfLink | None:
    """Steps that mark a free function and name it; before them, that raise the number where more are asked for."""
    parent_name = str(wanted.parent)
    devices = draft.world.vf_parents[parent_name].devices
    siblings = [item for item in all_wanted.values() if (item.kind, item.parent) == ("vf", parent_name)]
    asked = max(len(siblings), 1, *(item.vfs or 0 for item in (wanted, *siblings)))
    raise_it = parent_name not in draft.vf_counts and asked > len(devices)
    if raise_it and not _raise_count(draft, mark, parent_name, asked):
        return None
    if parent_name in draft.vf_counts:
        free = (vf for vf in range(draft.vf_counts[parent_name]) if (parent_name, vf) not in draft.taken_vfs)
        link = VfLink(parent_name, next(free))
        _take(draft, name, link, InterfaceMark(host=draft.host, name=mark, vfs_before=len(devices)))
        return link
    taken = []
    for device in devices:
        there = draft.world.snapshot.named(device.interface or "")
        why = why_taken(draft, parent_name, device)
        if why is None and there is not None:
            link = VfLink(parent_name, device.index)
            _take(
                draft,
                name,
                link,
                InterfaceMark(host=draft.host, name=mark, original=there.name, original_mac=there.mac),
            )
            return link
        taken.append(f"vf {device.index} {why}")
    draft.problem(f"{mark}: none of the {len(devices)} functions of {parent_name} is free: {'; '.join(taken)}")
    return None


def _raise_count(draft: PlanDraft, name: str, parent_name: str, asked: int) -> bool:
    parent = draft.world.vf_parents[parent_name]
    if asked > parent.total:
        draft.problem(f"{name}: {asked} functions are wanted of {parent_name}; allowed: at most {parent.total}")
        return False
    for device in parent.devices:
        # From one number to another all functions go and come again.
        if why := why_taken(draft, parent_name, device):
            draft.problem(
                f"{name}: {parent_name} has {len(parent.devices)} functions and {asked} are wanted; the number cannot "
                f"be raised while one is used: vf {device.index} {why}"
            )
            return False
    draft.do(SetVfCount(parent=parent_name, count=asked), SetVfCount(parent=parent_name, count=len(parent.devices)))
    draft.vf_counts[parent_name] = asked
    return True


def _take(draft: PlanDraft, name: str, link: VfLink, mark: InterfaceMark) -> None:
    draft.taken_vfs.add((link.parent, link.vf))
    _change(draft, link, "alias", str(mark), "")
    if name != mark.original:
        _change(draft, link, "name", name, mark.original or None)


def set_up_vf(draft: PlanDraft, name: str, wanted: Wanted, link: VfLink, mac: str) -> None:
    """Steps that give the function, named already, its MAC and what its parent keeps about it."""
    there = None if link.parent in draft.vf_counts else _interface_of(draft, link)
    now = DEFAULTS if there is None else _known(draft, link)
    check_mac(draft, name, mac, there)
    if there is None or there.mac != mac:
        if now.mac != NO_MAC:
            _set_all(draft, link, now, {"mac": NO_MAC})
            now = msgspec.structs.replace(now, mac=NO_MAC)
        _change(draft, name, "mac", mac, there.mac if there else None)
    if wanted.mtu is not None and (there is None or there.mtu != wanted.mtu):
        _change(draft, name, "mtu", wanted.mtu, there.mtu if there else None)
    aims: dict[VfKey, str | int | bool] = {
        "mac": mac, "vlan": wanted.vlan or 0, "spoof_check": wanted.spoof_check, "trust": wanted.trust,
        "max_rate": wanted.max_rate or 0,
    }  # fmt: skip
    _set_all(draft, link, now, aims)


def _known(draft: PlanDraft, link: VfLink) -> VirtualFunction:
    """What the parent says about the function now."""
    parent = draft.world.snapshot.named(link.parent)
    return next((found for found in parent.vfs if found.index == link.vf), DEFAULTS) if parent else DEFAULTS


def _interface_of(draft: PlanDraft, link: VfLink) -> NetInterface | None:
    devices = draft.world.vf_parents[link.parent].devices
    return draft.world.snapshot.named(devices[link.vf].interface or "") if link.vf < len(devices) else None


def _set_all(draft: PlanDraft, link: VfLink, now: VirtualFunction, aims: Mapping[VfKey, str | int | bool]) -> None:
    """Steps to these values. A key about which the driver says nothing is taken to have its default."""
    for key, value in aims.items():
        before = getattr(now, key)
        before = getattr(DEFAULTS, key) if before is None else before
        if value != before:
            undo = SetVf(parent=link.parent, vf=link.vf, key=key, value=before)
            draft.do(msgspec.structs.replace(undo, value=value), undo)


def _change(draft: PlanDraft, link: Link, key: Key, value: str | int, before: str | int | None) -> None:
    """A step that sets one property. ``before``: None if the plan makes the function; then no undo is needed, since the
    function goes.
    """
    undo = [] if before is None else [SetLink(link=link, key=key, value=before)]
    draft.do(SetLink(link=link, key=key, value=value), *undo)
