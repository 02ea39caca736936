"""Routes to the peers and to this machine's own macvlan children, as the kernel would take them now."""

from __future__ import annotations

import ipaddress

from control.base.reading.addresses import TcpAddress
from proxy.check.context import DiagnosisContext, PeerTarget
from proxy.check.report import Unchecked
from proxy.check.rules.path import ChildAddress, OffloadedInterface, PathFacts, PeerPath
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config
from proxy.netdev.observe.observe import NetInterface, route_to


def read(context: DiagnosisContext) -> PathFacts:
    """Asks the kernel for a route for each address."""
    config = context.config
    listen = config.links.listen.host if config else None
    if listen == AUTO:  # not leased yet
        listen = None
    return PathFacts(
        ways=tuple(_way(context, target) for target in context.targets),
        offloaded=tuple(
            _offloaded(context, found) for found in context.snapshot.interfaces if context.offloaded(found)
        ),
        children=_children(context),
        listen=listen,
        listening=_owner(context, listen) if listen else None,
    )


def _way(context: DiagnosisContext, target: PeerTarget) -> PeerPath:
    if target.address is None:
        return PeerPath(peer=target.peer, name=target.name, problem=target.problem)
    route = route_to(target.address)
    interface = context.snapshot.at(route.interface) if route else None
    if route is None or interface is None:
        return PeerPath(peer=target.peer, name=target.name, address=target.address)
    return PeerPath(
        peer=target.peer,
        name=target.name,
        address=target.address,
        interface=interface.name,
        kind=context.kind(interface),
        offloaded=context.offloaded(interface),
        up=interface.up and interface.carrier,
        via=route.via,
        local=route.local,
    )


def _offloaded(context: DiagnosisContext, interface: NetInterface) -> OffloadedInterface:
    addresses = tuple(str(item) for item in context.snapshot.addresses_of(interface.index) if item.scope == 0)
    return OffloadedInterface(interface=interface.name, kind=context.kind(interface), addresses=addresses)


def _owner(context: DiagnosisContext, listen: str) -> str | None:
    if ipaddress.ip_address(listen).is_unspecified:
        return "every interface"
    for item in context.snapshot.addresses:
        if item.address == listen and (interface := context.snapshot.at(item.interface)) is not None:
            return interface.name
    return None


def _children(context: DiagnosisContext) -> tuple[ChildAddress, ...] | Unchecked:
    if isinstance(context.children, Unchecked):
        return context.children
    found = []
    for child in context.children:
        for text in child.addresses:
            address = ipaddress.ip_interface(text).ip
            if address.is_link_local or child.interface.kind != "macvlan":
                continue
            route = route_to(str(address))
            interface = context.snapshot.at(route.interface) if route else None
            found.append(
                ChildAddress(
                    label=child.label,
                    address=str(address),
                    parent=child.parent.name,
                    wanted_by=_wanted_by(context.config, str(address)),
                    interface=interface.name if interface else None,
                    mode=interface.macvlan_mode if interface else None,
                )
            )
    return tuple(found)


def _wanted_by(config: Config | None, address: str) -> tuple[str, ...]:
    """Where the configuration names an address that this host must reach."""
    if config is None:
        return ()
    named = [(f"peers.{name}.address", peer.address) for name, peer in config.peers.items()]
    for name, service in config.services.items():
        if isinstance(service.deliver, TcpAddress):
            named.append((f"services.{name}.deliver", service.deliver))
    return tuple(path for path, target in named if target.host == address)
