"""Addresses and routes of one interface: what is there, what is wanted, and the steps between them (sans-IO)."""

from __future__ import annotations

import ipaddress

import msgspec

from proxy.config.interfaces import AnyInterfaceConfig as Wanted
from proxy.config.interfaces import RouteConfig as WantedRoute
from proxy.config.netvalues import AUTO, DEFAULT
from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import PROTOCOL
from proxy.netdev.observe.records import Address, KernelRoute, NetInterface
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.steps import MAIN_TABLE, SetAddress, SetRoute

LINK_SCOPE = 253
MADE_BY_KERNEL = 2
IPV6_METRIC = 1024
"""What the kernel makes of metric 0 for IPv6 (IP6_RT_PRIO_USER)."""

RouteKey = tuple[str, str | None, int, int]
"""Network, router, metric, table: what tells the routes of an interface apart."""


def plan_addressing(
    draft: PlanDraft,
    name: str,
    wanted: Wanted,
    there: NetInterface | None,
    *,
    table: int | None = None,
    inside: bool = False,
) -> None:
    """Steps that give the interface its addresses and routes; ``there``: as it is now, None if the plan makes it.
    ``table``: in this one its networks and routes stand, too.

    Of an interface that Hostlane made, all that is not wanted goes; of another's only what Hostlane added.
    """
    present, routes = _listed(draft, there), routes_of(draft, there)
    stale = [address for address in present if str(address) not in wanted.addresses and _ours(address.protocol, there)]
    leaving = [address for address in present if address in stale or _falls_with(address, present, stale)]
    staying = [address for address in present if address not in leaving]
    aims = [_normal(route, MAIN_TABLE) for route in wanted.routes]
    if table is not None:
        aims += [_normal(route, table) for route in [*_networks(wanted), *wanted.routes]]
    dropped = [route for route in routes if _key(route) not in aims and _ours(route.protocol, there)]
    if any(_is_v4(address) for address in leaving) and not any(_is_v4(address) for address in staying):
        # With an interface's last IPv4 address the kernel takes its IPv4 routes away, whoever made them.
        dropped = [route for route in routes if route in dropped or "." in route.to]
    for route in dropped:
        draft.do(_route(name, route, False), _route(name, route, True))
    for address in reversed(leaving):
        draft.do(_set(name, address, False), _set(name, address, True))
    for address in [address for address in leaving if address not in stale]:
        draft.do(_set(name, address, True), _set(name, address, False))
    kept = [route for route in routes if route not in dropped]
    new = [text for text in wanted.addresses if text not in map(str, present)]
    _add_addresses(draft, name, new, [] if any(map(_is_v4, staying)) else kept, inside=inside)
    for route in dropped:
        if _key(route) not in aims and not _ours(route.protocol, there):
            draft.do(_route(name, route, True), _route(name, route, False))
    for to, via, metric, into in aims:
        if (to, via, metric, into) not in map(_key, kept):
            way = SetRoute(link=name, to=to, via=via, metric=metric, table=into, inside=inside)
            draft.do(way, msgspec.structs.replace(way, present=False))


def _add_addresses(draft: PlanDraft, name: str, new: list[str], fragile: list[KernelRoute], *, inside: bool) -> None:
    """``fragile``: routes that go with the interface's only IPv4 address when that is taken back."""
    for text in new:
        if not inside:
            _refuse_taken(draft, name, text)
        add = SetAddress(link=name, address=text, inside=inside)
        back = [_route(name, route, True) for route in fragile if "." in route.to and "." in text]
        draft.do(add, msgspec.structs.replace(add, present=False), *back)
        fragile = [] if back else fragile


def restored(draft: PlanDraft, there: NetInterface) -> list[SetAddress | SetRoute]:
    """What brings the addresses and routes of an interface back after it was deleted and made again."""
    return [
        *(_set(there.name, address, True) for address in _listed(draft, there)),
        *(_route(there.name, route, True) for route in routes_of(draft, there)),
    ]


def drop_ours(draft: PlanDraft, there: NetInterface) -> None:
    """Take away the addresses and routes that Hostlane added to somebody else's interface."""
    plan_addressing(draft, there.name, Wanted(kind="existing"), there)


def routes_of(draft: PlanDraft, there: NetInterface | None) -> list[KernelRoute]:
    """Those of the main table, whoever made them, and Hostlane's in others."""
    return [
        route
        for route in draft.world.snapshot.routes
        if there is not None
        and route.interface == there.index
        and (route.table == MAIN_TABLE or route.protocol == PROTOCOL)
        and route.kind == 1
        and route.protocol != MADE_BY_KERNEL
    ]


def _route(name: str, route: KernelRoute, present: bool) -> SetRoute:
    return SetRoute(
        link=name,
        to=route.to,
        via=route.via,
        source=route.source,
        metric=route.metric,
        table=route.table,
        present=present,
        protocol=route.protocol,
    )


def _listed(draft: PlanDraft, there: NetInterface | None) -> list[Address]:
    """In the kernel's order; without the link-local ones that it gives to IPv6 by itself."""
    if there is None:
        return []
    return [found for found in draft.world.snapshot.addresses_of(there.index) if found.scope != LINK_SCOPE]


def _ours(protocol: int, there: NetInterface | None) -> bool:
    return protocol == PROTOCOL or (there is not None and mark.read(there.alias) is not None)


def _set(name: str, address: Address, present: bool) -> SetAddress:
    return SetAddress(link=name, address=str(address), present=present, protocol=address.protocol)


def _falls_with(address: Address, present: list[Address], stale: list[Address]) -> bool:
    """The kernel deletes an IPv4 address together with the later ones of its network: those have to come back."""
    before = present[: present.index(address)]
    return _is_v4(address) and any(_network(address) == _network(other) for other in before if other in stale)


def _is_v4(address: Address) -> bool:
    return "." in address.address


def _network(address: Address) -> object:
    return ipaddress.ip_interface(str(address)).network


def _refuse_taken(draft: PlanDraft, name: str, text: str) -> None:
    ip = text.partition("/")[0]
    for found in draft.world.snapshot.addresses:
        holder = draft.world.snapshot.at(found.interface)
        if found.address == ip and holder is not None and holder.index not in draft.gone and holder.name != name:
            draft.problem(f"{name}: address {ip} is on {holder.name} already; remove it there or choose another")


def _networks(wanted: Wanted) -> list[WantedRoute]:
    """The networks that the interface's addresses are in, each once."""
    found = [ipaddress.ip_interface(text).network for text in wanted.addresses if text != AUTO]
    return [WantedRoute(to=str(network)) for network in dict.fromkeys(found)]


def _normal(route: WantedRoute, table: int) -> RouteKey:
    """As the kernel would list it."""
    six = ":" in (route.via or "") or ":" in route.to
    to = ("::/0" if six else "0.0.0.0/0") if route.to == DEFAULT else route.to
    return to, route.via, route.metric or (IPV6_METRIC if six else 0), table


def _key(route: KernelRoute) -> RouteKey:
    return route.to, route.via, route.metric, route.table
