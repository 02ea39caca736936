"""Routes to the peers and to this machine's own macvlan children, as the kernel would take them now."""

from __future__ import annotations

import ipaddress

from control.base.reading.addresses import TcpAddress
from proxy.check.report import Unseen
from proxy.check.rules.path import Child, Facts, Offloaded, Way
from proxy.check.scene import Scene, Target
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config
from proxy.netdev.observe.observe import Interface, route_to


def read(scene: Scene) -> Facts:
    """Asks the kernel for a route for each address."""
    config = scene.config
    listen = config.links.listen.host if config else None
    if listen == AUTO:  # not leased yet
        listen = None
    return Facts(
        ways=tuple(_way(scene, target) for target in scene.targets),
        offloaded=tuple(_offloaded(scene, found) for found in scene.snapshot.interfaces if scene.offloaded(found)),
        children=_children(scene),
        listen=listen,
        listening=_owner(scene, listen) if listen else None,
    )


def _way(scene: Scene, target: Target) -> Way:
    if target.address is None:
        return Way(peer=target.peer, name=target.name, problem=target.problem)
    route = route_to(target.address)
    interface = scene.snapshot.at(route.interface) if route else None
    if route is None or interface is None:
        return Way(peer=target.peer, name=target.name, address=target.address)
    return Way(
        peer=target.peer,
        name=target.name,
        address=target.address,
        interface=interface.name,
        kind=scene.kind(interface),
        offloaded=scene.offloaded(interface),
        up=interface.up and interface.carrier,
        via=route.via,
        local=route.local,
    )


def _offloaded(scene: Scene, interface: Interface) -> Offloaded:
    addresses = tuple(str(item) for item in scene.snapshot.addresses_of(interface.index) if item.scope == 0)
    return Offloaded(interface=interface.name, kind=scene.kind(interface), addresses=addresses)


def _owner(scene: Scene, listen: str) -> str | None:
    if ipaddress.ip_address(listen).is_unspecified:
        return "every interface"
    for item in scene.snapshot.addresses:
        if item.address == listen and (interface := scene.snapshot.at(item.interface)) is not None:
            return interface.name
    return None


def _children(scene: Scene) -> tuple[Child, ...] | Unseen:
    if isinstance(scene.children, Unseen):
        return scene.children
    found = []
    for child in scene.children:
        for text in child.addresses:
            address = ipaddress.ip_interface(text).ip
            if address.is_link_local or child.interface.kind != "macvlan":
                continue
            route = route_to(str(address))
            interface = scene.snapshot.at(route.interface) if route else None
            found.append(
                Child(
                    label=child.label,
                    address=str(address),
                    parent=child.parent.name,
                    wanted_by=_wanted_by(scene.config, str(address)),
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
