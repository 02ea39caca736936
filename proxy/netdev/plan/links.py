"""macvlan children and the VLAN interfaces under them (sans-IO): what is there, what is wanted, the steps between."""

from __future__ import annotations

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.config.netvalues import STABLE
from proxy.netdev.observe.mark import InterfaceMark, read, stable_mac, vlan_name
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.addressing import restored
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.settings import QUIETED, quiet, quieted, restored_settings, shall_quiet
from proxy.netdev.plan.steps import CreateLink, DeleteLink, Operation, SetLink


def wanted_mac(host: str, name: str, wanted: Wanted) -> str:
    """The MAC that the interface shall have; "" for passthru, which has its parent's."""
    if wanted.kind == "macvlan" and wanted.mode == "passthru":
        return ""
    return stable_mac(host, name) if wanted.mac == STABLE else wanted.mac


def plan_macvlan(draft: PlanDraft, name: str, wanted: Wanted) -> NetInterface | None:
    """Steps that make or change the macvlan child. Returns it as it is now if it stays, None if the plan makes it."""
    parent = plan_parent(draft, name, wanted)
    there = draft.named(name)
    if parent is None or not may_use(draft, name, there):
        return None
    mac = wanted_mac(draft.host, name, wanted)
    check_mac(draft, name, mac, there)
    below = draft.named(parent)
    if there is None:
        if below is not None:
            _check_siblings(draft, name, wanted, below)
        make_macvlan(draft, name, wanted, parent, mac)
        noisy, replaced = shall_quiet(draft, wanted), draft.world.snapshot.named(name)
        was_quieted = replaced is not None and (old := read(replaced.alias)) is not None and quieted(old)
        mark = InterfaceMark(host=draft.host, name=name, original=QUIETED if noisy or was_quieted else "")
        draft.do(SetLink(link=name, key="alias", value=str(mark)), SetLink(link=name, key="alias", value=""))
        draft.made.add(name)
        if noisy is not None:
            quiet(draft, noisy)
        return None
    if (noisy := shall_quiet(draft, wanted)) is not None:
        mark = InterfaceMark(host=draft.host, name=name, original=QUIETED)
        if str(mark) != there.alias:
            draft.do(
                SetLink(link=name, key="alias", value=str(mark)), SetLink(link=name, key="alias", value=there.alias)
            )
        quiet(draft, noisy)
    if mac and mac != there.mac:
        draft.do(SetLink(link=name, key="mac", value=mac), SetLink(link=name, key="mac", value=there.mac))
    mtu = wanted.mtu or (below.mtu if below else there.mtu)
    if mtu != there.mtu:
        draft.do(SetLink(link=name, key="mtu", value=mtu), SetLink(link=name, key="mtu", value=there.mtu))
    return there


def fits(draft: PlanDraft, there: NetInterface, wanted: Wanted) -> bool:
    """Whether the macvlan child can become what is wanted; its parent and mode cannot be changed."""
    below = draft.world.snapshot.parent_of(there)
    if (wanted.kind, wanted.mode) != ("macvlan", there.macvlan_mode) or below is None:
        return False
    if wanted.vlan is None:
        return below.name == wanted.parent
    parent = draft.world.snapshot.at(below.parent)
    return below.vlan_id == wanted.vlan and parent is not None and parent.name == wanted.parent


def make_macvlan(draft: PlanDraft, link: str, wanted: Wanted, parent: str, mac: str, *, into: bool = False) -> None:
    draft.do(
        CreateLink(link=link, kind="macvlan", parent=parent, mode=wanted.mode, mac=mac, mtu=wanted.mtu or 0, into=into),
        DeleteLink(link=link, inside=into),
    )


def set_up(draft: PlanDraft, name: str, there: NetInterface | None, *, inside: bool = False) -> None:
    if there is None or not there.up:
        up, down = (SetLink(link=name, key="state", value=value, inside=inside) for value in ("up", "down"))
        draft.do(up, down)


def plan_parent(draft: PlanDraft, name: str, wanted: Wanted) -> str | None:
    """The name of the interface to stand on; a VLAN interface is made if there is none. None: a problem was noted."""
    assert wanted.parent is not None
    parent = draft.named(wanted.parent)
    if parent is None:
        names = ", ".join(sorted(found.name for found in draft.world.snapshot.interfaces)) or "none"
        draft.problem(f"{name}: parent {wanted.parent} does not exist; there are: {names}")
        return None
    if why := _unfit(draft, parent):
        draft.problem(f"{name}: parent {parent.name} {why}")
        return None
    if wanted.mtu is not None and wanted.mtu > parent.mtu:
        draft.problem(f"{name}: mtu {wanted.mtu} is more than the {parent.mtu} of {parent.name}; allowed: at most that")
    return parent.name if wanted.vlan is None else _plan_vlan(draft, name, parent, wanted.vlan)


def _unfit(draft: PlanDraft, parent: NetInterface) -> str:
    """Why the kernel would refuse a macvlan child there, or make it elsewhere."""
    master = draft.world.snapshot.at(parent.master)
    if master is not None:
        return f"is a port of {master.name}, which receives its frames; use {master.name}"
    if parent.kind == "macvlan":
        below = draft.world.snapshot.parent_of(parent)
        return "is a macvlan child itself; use " + (
            below.name if below else "its parent, which is in another namespace"
        )
    if parent.name == "lo":
        return "is the loopback interface; use one with a MAC"
    return ""


def _plan_vlan(draft: PlanDraft, name: str, parent: NetInterface, vlan: int) -> str | None:
    for found in draft.world.children(parent):
        if found.vlan_id == vlan and found.index not in draft.gone:
            if draft.is_own(found, found.name) and found.name not in draft.made:
                set_up(draft, found.name, found)
                draft.made.add(found.name)
            return found.name
    made = vlan_name(parent.name, vlan)
    if made in draft.made:
        return made
    if draft.named(made) is not None:
        draft.problem(f"{name}: {made} exists and is not VLAN {vlan} of {parent.name}; rename it")
        return None
    if not parent.up:
        draft.problem(f"{name}: {parent.name} is down, so VLAN {vlan} on it cannot be up: ip link set {parent.name} up")
        return None
    draft.do(CreateLink(link=made, kind="vlan", parent=parent.name, vlan=vlan), DeleteLink(link=made))
    mark = InterfaceMark(host=draft.host, name=made)
    draft.do(SetLink(link=made, key="alias", value=str(mark)), SetLink(link=made, key="alias", value=""))
    set_up(draft, made, None)
    draft.made.add(made)
    return made


def may_use(draft: PlanDraft, name: str, there: NetInterface | None) -> bool:
    """Whether ``name`` is free or ours. Notes a problem if not."""
    if there is None or draft.is_own(there, name):
        return True
    draft.problem(
        f"{name}: exists and is not marked as this host's ({f'alias {there.alias}' if there.alias else 'no alias'}); "
        "choose another name, or remove or rename it"
    )
    return False


def check_mac(draft: PlanDraft, name: str, mac: str, there: NetInterface | None) -> None:
    """The kernel refuses a MAC that the parent or a child of it has; another one's would be a duplicate on the wire."""
    others = [found for found in draft.world.snapshot.interfaces if mac and found != there]
    for found in others:
        if found.mac == mac and found.index not in draft.gone:
            draft.problem(f"{name}: mac {mac} is that of {found.name}; choose another")
    here = {found.mac for found in draft.world.snapshot.interfaces}
    for found in others:
        if mac in found.unicast and mac not in here:
            draft.problem(f"{name}: mac {mac} is that of a container's child on {found.name}; choose another")


def _check_siblings(draft: PlanDraft, name: str, wanted: Wanted, below: NetInterface) -> None:
    """A passthru child takes its parent over; the kernel refuses a second one beside it, and it beside others."""
    there = [child for child in draft.world.children(below) if child.kind == "macvlan"]
    leaving = {child.mac for child in there if child.index in draft.gone}
    staying = [child for child in there if child.index not in draft.gone]
    elsewhere = sorted(set(below.unicast) - {child.mac for child in there} - leaving)
    for child in staying if wanted.mode == "passthru" else [c for c in staying if c.macvlan_mode == "passthru"]:
        draft.problem(f"{name}: {child.name} stands on {below.name} already, and a passthru child stands alone")
    if elsewhere and wanted.mode == "passthru":
        draft.problem(
            f"{name}: a container's child with mac {elsewhere[0]} stands on {below.name}; passthru stands alone"
        )


def delete_link(draft: PlanDraft, there: NetInterface) -> None:
    """Delete a macvlan or VLAN interface; the undo makes it again, index, addresses and routes included."""
    parent = draft.world.snapshot.parent_of(there)
    undo: list[Operation] = []
    if parent is not None and there.kind in ("macvlan", "vlan"):
        passthru = there.macvlan_mode == "passthru"
        undo = [
            CreateLink(
                link=there.name, kind="macvlan" if there.kind == "macvlan" else "vlan", parent=parent.name,
                mode=there.macvlan_mode or "", vlan=there.vlan_id or 0, mac="" if passthru else there.mac,
                mtu=there.mtu, index=there.index,
            ),
            SetLink(link=there.name, key="alias", value=there.alias),
        ]  # fmt: skip
        undo += restored_settings(draft, there)
        if there.up:
            undo.append(SetLink(link=there.name, key="state", value="up"))
        undo += restored(draft, there)
    draft.do(DeleteLink(link=there.name), *undo)
    draft.gone.add(there.index)
