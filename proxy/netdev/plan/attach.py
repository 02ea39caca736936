"""What a container gets: a macvlan child or a virtual function in its own network namespace (sans-IO).

It comes under a temporary name that no namespace has, and is renamed inside. A macvlan child is made where it belongs;
when the container ends, the kernel deletes it. A function is moved there and comes back by itself, marked: `apply`,
`remove` and `detach` then give it back to its parent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import msgspec

from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.config.schema import Config
from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import InterfaceMark
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NetInterface, NetSnapshot
from proxy.netdev.plan.addressing import plan_addressing, restored
from proxy.netdev.plan.budget import usages
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.links import check_mac, make_macvlan, plan_parent, set_up, wanted_mac
from proxy.netdev.plan.steps import DeleteLink, MoveLink, NetPlan, Operation, SetAddress, SetLink, SetRoute
from proxy.netdev.plan.vfs import choose_vf, give_back, is_vf_parent, set_up_vf


def plan_attachment(
    config: Config,
    container: str,
    wanted: ContainerInterfaceConfig,
    world: NetworkState,
    inside: NetSnapshot,
    temporary: str,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> NetPlan:
    """Steps that give the container its interface; none if it has it. ``inside``: the container's namespace;
    ``elsewhere``: as `budget.usages` takes it.
    """
    draft = PlanDraft(config.host, world)
    there = inside.named(wanted.name)
    holder = None if there is None else _holder(there, config.host)
    if holder == container:
        draft.note(f"{wanted.name}: {container} has it already; detach gives it back")
        return draft.plan()
    if holder is not None:
        draft.problem(f"{wanted.name}: {container} has it already, as {holder}; detach gives it back")
    elif there is not None:
        draft.problem(f"{wanted.name}: {container} has an interface of that name; choose another with name")
    _refuse_taken(draft, wanted, inside)
    for usage in usages(config, world, wanted, elsewhere):
        if usage.over:
            (draft.problem if usage.refuse else draft.note)(usage.over)
    mac = wanted_mac(config.host, f"@{container}:{wanted.name}", wanted)
    if wanted.kind == "vf":
        _move_vf(draft, container, wanted, mac, temporary)
    else:
        _make(draft, container, wanted, mac, temporary)
    draft.do(
        SetLink(link=temporary, key="name", value=wanted.name, inside=True),
        SetLink(link=wanted.name, key="name", value=temporary, inside=True),
    )
    set_up(draft, wanted.name, None, inside=True)
    plan_addressing(draft, wanted.name, wanted, None, inside=True)
    return draft.plan()


def given_to(host: str, inside: NetSnapshot) -> set[str]:
    """The names of those that what this host gave to the namespace was given to."""
    return {name for found in inside.interfaces if (name := _holder(found, host)) is not None}


def plan_detachment(host: str, inside: NetSnapshot, temporary: str) -> NetPlan:
    """Steps that take out of the container what this host gave to it, by whatever name (`--pid`, or before the
    container was renamed). Functions are in the host afterwards; see `plan_return`.
    """
    draft = PlanDraft(host, NetworkState(snapshot=inside))
    mine = [found for found in inside.interfaces if _holder(found, host) is not None]
    for number, there in enumerate(mine):
        if there.kind == "macvlan":
            draft.do(DeleteLink(link=there.name, inside=True))
            continue
        name = f"{temporary}{number}"
        back: list[Operation] = [SetLink(link=there.name, key="state", value="up", inside=True)] if there.up else []
        back += [_inside(operation) for operation in restored(draft, there)]
        draft.do(SetLink(link=there.name, key="state", value="down", inside=True), *back)
        draft.do(
            SetLink(link=there.name, key="name", value=name, inside=True),
            SetLink(link=name, key="name", value=there.name, inside=True),
        )
        draft.do(MoveLink(link=name, inside=True), MoveLink(link=name))
    return draft.plan()


def plan_return(host: str, containers: Collection[str], world: NetworkState) -> NetPlan:
    """Steps that give the functions back which the containers had, and which are in the host again."""
    draft = PlanDraft(host, world)
    for there, found in draft.own():
        if found.container in containers:
            give_back(draft, there, found)
    return draft.plan()


def _make(draft: PlanDraft, container: str, wanted: ContainerInterfaceConfig, mac: str, temporary: str) -> None:
    parent = plan_parent(draft, wanted.name, wanted)
    check_mac(draft, wanted.name, mac, None)
    if parent is not None:
        make_macvlan(draft, temporary, wanted, parent, mac, into=True)
        alias = str(InterfaceMark(host=draft.host, name=f"@{container}"))
        draft.do(
            SetLink(link=temporary, key="alias", value=alias, inside=True),
            SetLink(link=temporary, key="alias", value="", inside=True),
        )


def _move_vf(draft: PlanDraft, container: str, wanted: ContainerInterfaceConfig, mac: str, temporary: str) -> None:
    if not is_vf_parent(draft, wanted.name, str(wanted.parent)):
        return
    link = choose_vf(draft, temporary, f"@{container}", wanted, {})
    if link is not None:
        set_up_vf(draft, temporary, wanted, link, mac)
        draft.do(MoveLink(link=temporary), MoveLink(link=temporary, inside=True))


def _refuse_taken(draft: PlanDraft, wanted: ContainerInterfaceConfig, inside: NetSnapshot) -> None:
    for where, snapshot in (("the container", inside), ("this host", draft.world.snapshot)):
        present = {address.address: snapshot.at(address.interface) for address in snapshot.addresses}
        for text in wanted.addresses:
            holder = present.get(text.partition("/")[0])
            if holder is not None:
                draft.problem(f"{wanted.name}: {holder.name} of {where} has address {text.partition('/')[0]} already")


def _holder(there: NetInterface, host: str) -> str | None:
    """Whom this host gave the interface to; None: to nobody, or it is not this host's."""
    found = mark.read(there.alias)
    return found.container if found is not None and found.host == host else None


def _inside(operation: SetAddress | SetRoute) -> Operation:
    return msgspec.structs.replace(operation, inside=True)
