"""Routes to the peers and to this machine's own macvlan children, as the kernel would take them now."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from control.base.reading.addresses import TcpAddress, is_bindable, scope_of, without_scope
from proxy.check.context import DiagnosisContext, PeerTarget
from proxy.check.readers import files
from proxy.check.readers.linksockets import TcpConnection, connections
from proxy.check.report import Unchecked
from proxy.check.rules.path import ChildAddress, LinkUse, OffloadedInterface, PathFacts, PeerPath, SourceUse
from proxy.config.netvalues import ANY, AUTO
from proxy.config.schema import Config
from proxy.netdev.observe.observe import NetInterface, route_to


def read(context: DiagnosisContext) -> PathFacts:
    """Asks the kernel for a route for each address."""
    config = context.config
    listen = without_scope(config.links.listen.host) if config else None
    if listen == AUTO:  # not leased yet
        listen = None
    return PathFacts(
        ways=tuple(_way(context, target) for target in context.targets),
        offloaded=tuple(
            _offloaded(context, found) for found in context.snapshot.interfaces if context.offloaded(found)
        ),
        children=_children(context),
        listen=listen,
        listening=_bearer(context, listen) if listen else None,
        missing=f"{context.links.why} (links.interface)" if context.links.missing and config and _named(config) else "",
        lent=_lent(context, listen) if listen else "",
        sources=_sources(context),
        more=context.more,
        configured=context.config is not None,
        elsewhere=context.elsewhere.label if context.elsewhere else "",
        enter=f"nsenter -t {context.elsewhere.pid} -n " if context.elsewhere else "",
        **_links(context, listen),
    )


def _named(config: Config) -> bool:
    return config.links.interface not in (AUTO, ANY)


def _links(context: DiagnosisContext, listen: str | None) -> dict[str, Any]:
    """What links use, beside what they are meant to."""
    meant = _meant(context)
    if meant is None:
        return {}
    subnet = next((str(ipaddress.ip_interface(str(item)).network) for item in context.snapshot.addresses_of(meant.index)
                   if item.address == listen), "")  # fmt: skip
    try:
        up = list(_up(context, connections()))
    except OSError as error:
        return {"used": files.unseen("which interface links leave through", error)}
    known = {use.address for use in up}
    coming = [use for target in context.targets if target.address not in known and (use := _coming(context, target))]
    return {"meant": meant.name, "subnet": subnet, "used": (*dict.fromkeys(up), *coming),
            "in_the_way": context.links.why, "remedy": context.links.mend}  # fmt: skip


def _meant(context: DiagnosisContext) -> NetInterface | None:
    """The interface that links are meant for; None if they may use any, or it is not there."""
    if context.links.interface is not None:
        return context.snapshot.at(context.links.interface.index)
    if context.links.missing or not context.links.why or context.source is None:
        return None
    bearer = next((item for item in context.snapshot.addresses if item.address == context.source), None)
    return context.snapshot.at(bearer.interface) if bearer else None


def _up(context: DiagnosisContext, established: Iterable[TcpConnection]) -> Iterator[LinkUse]:
    """The links among the connections: by the port at which peers arrive here, or that at which a peer is dialled."""
    assert context.config is not None
    listen, names = context.config.links.listen, {t.address: t.peer for t in context.targets if t.address}
    own, dialled = without_scope(listen.host), {(target.address, target.port) for target in context.targets}
    for found in established:
        arrived = (found.local, found.local_port) == (own, listen.port)
        if not arrived and (found.local != own or (found.remote, found.remote_port) not in dialled):
            continue
        if context.is_here(found.remote):
            continue
        route = None if found.bound else route_to(found.remote, source=found.local)
        interface = context.snapshot.at(found.bound or (route.interface if route else 0))
        if interface is not None:
            yield LinkUse(peer=names.get(found.remote, "one that dialled"), address=found.remote,
                          interface=interface.name, up=True, bound=found.bound != 0)  # fmt: skip


def _coming(context: DiagnosisContext, target: PeerTarget) -> LinkUse | None:
    route = context.route_to(target.address) if target.address and context.is_routed(target.address) else None
    interface = context.snapshot.at(route.interface) if route else None
    if route is None or interface is None or route.local or target.address is None:
        return None
    return LinkUse(peer=target.peer, address=target.address, interface=interface.name, up=False)


def _way(context: DiagnosisContext, target: PeerTarget) -> PeerPath:
    if target.address is None:
        return PeerPath(peer=target.peer, name=target.name, problem=target.problem)
    route = context.route_to(target.address)
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
        unrouted="" if context.is_routed(target.address) else context.links.device,
        local=route.local,
    )


def _offloaded(context: DiagnosisContext, interface: NetInterface) -> OffloadedInterface:
    addresses = tuple(str(item) for item in context.snapshot.addresses_of(interface.index) if item.scope == 0)
    return OffloadedInterface(interface=interface.name, kind=context.kind(interface), addresses=addresses)


def _sources(context: DiagnosisContext) -> tuple[SourceUse, ...]:
    services = context.config.services if context.config else {}
    return tuple(
        SourceUse(key=f"services.{name}.source", address=address, interface=_bearer(context, address))
        for name, service in services.items()
        for address in service.source
    )


def _lent(context: DiagnosisContext, address: str) -> str:
    """The setting by which a proxy listens at an address that no interface has; empty: it cannot, or one has it."""
    if _bearer(context, address) is not None or not is_bindable(address):
        return ""
    return f"net.ipv{6 if ':' in address else 4}.ip_nonlocal_bind"


def _bearer(context: DiagnosisContext, address: str) -> str | None:
    """The interface that has an address; the loopback one where all of a network is this machine, as 127.0.0.0/8 is."""
    if (owner := _owner(context, address)) is not None:
        return owner
    if scope_of(address):
        return None
    route = route_to(address)
    interface = context.snapshot.at(route.interface) if route and route.local else None
    return interface.name if interface else None


def _owner(context: DiagnosisContext, listen: str) -> str | None:
    if ipaddress.ip_address(listen).is_unspecified:
        return "every interface"
    address, scope = without_scope(listen), scope_of(listen)
    for item in context.snapshot.addresses:
        interface = context.snapshot.at(item.interface) if item.address == address else None
        if interface is not None and scope in ("", interface.name, str(interface.index)):
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
