"""Whom a diagnosis is about: one host's configuration, where its peers are, and the interfaces that it sees."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from msgspec import Struct

from control.api.messages import Status
from control.base.reading.addresses import (
    ADMIN_SOCKET,
    TcpAddress,
    host_port,
    is_bindable,
    is_link_local,
    scope_of,
    without_scope,
)
from proxy.check.readers.namespaces import ChildInterface, children, elsewhere, label
from proxy.check.readers.runningproxy import running
from proxy.check.report import Unchecked
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config
from proxy.links.device import LinkWay, arp_ignore, choose
from proxy.links.rtnetlink import has_route, host_network
from proxy.netdev.observe.observe import NetInterface, NetSnapshot, RouteAnswer, route_to, snapshot

OFFLOADED = frozenset({"macvlan", "macvtap", "ipvlan", "vf"})
"""Kinds of interfaces whose frames pass no bridge and no NAT of the host."""


MOST = 32
"""Peers that are looked at: each takes some packets, and one that does not answer some seconds."""


class PeerTarget(Struct, frozen=True, kw_only=True):
    """A peer to be diagnosed. ``address`` is None when its name does not resolve; ``problem`` says why."""

    peer: str
    name: str
    """The host part of its address in the configuration."""
    address: str | None
    port: int = 0
    problem: str = ""


class ProxyPlace(Struct, frozen=True):
    """A namespace of this machine that has the address of ``links.listen``, or the proxy that runs with the
    configuration. ``pid``: of a process in it.
    """

    label: str
    pid: int


class DiagnosisContext(Struct, frozen=True, kw_only=True):
    """What a diagnosis is about. ``config`` is None for a machine without one: then there are no targets."""

    config: Config | None
    snapshot: NetSnapshot
    virtual_functions: frozenset[str] = frozenset()
    """Names of this namespace's interfaces that are virtual functions."""
    targets: tuple[PeerTarget, ...] = ()
    more: tuple[Unchecked, ...] = ()
    """Peers that are not among the targets, and why."""
    elsewhere: ProxyPlace | None = None
    """The other namespace on this machine that the configuration is for; there are no targets then."""
    children: tuple[ChildInterface, ...] | Unchecked = ()
    """Interfaces in other namespaces that hang on one of this namespace."""
    certificates: tuple[str, ...] = ()
    """PEM files to be looked at."""
    links: LinkWay = LinkWay()
    """What a proxy with this configuration binds its links to."""

    @property
    def source(self) -> str | None:
        """The address of this host that links come from; None: not known, or any."""
        listen = without_scope(self.config.links.listen.host) if self.config else AUTO
        known = listen != AUTO and not ipaddress.ip_address(listen).is_unspecified
        return listen if known and any(item.address == listen for item in self.snapshot.addresses) else None

    def route_to(self, address: str) -> RouteAnswer | None:
        """The way of a link's packets to an address; None when there is none. Raises as `observe.route_to`."""
        interface = self.links.interface
        if self.is_here(address):
            return route_to(address)
        if is_link_local(address) and (scope := self._scope) is not None:
            return route_to(address, interface=scope.index)
        if interface is None or not self.is_routed(address):
            return route_to(address, source=self._source_for(address))
        return route_to(address, source=self._source_for(address), interface=interface.index)

    def is_routed(self, address: str) -> bool:
        """Whether a route leads to an address through the interface that links are bound to, or they are to none."""
        interface = self.links.interface
        if interface is None or self.is_here(address):
            return True
        try:
            return has_route(address, self._source_for(address), interface.index)
        except OSError:
            return True  # it cannot be asked

    @property
    def _scope(self) -> NetInterface | None:
        """The interface of a link-local ``links.listen``, where its peers are, too."""
        scope = scope_of(self.config.links.listen.host) if self.config else ""
        return next((found for found in self.snapshot.interfaces if scope in (found.name, str(found.index))), None)

    def _source_for(self, address: str) -> str | None:
        return self.source if self.source and (":" in self.source) == (":" in address) else None

    def is_here(self, address: str) -> bool:
        """Whether packets to an address never leave this host."""
        here = any(item.address == address for item in self.snapshot.addresses)
        return here or ipaddress.ip_address(address).is_loopback

    def bind(self, sock: socket.socket, address: str) -> None:
        """Let a probe to an address leave as a link's packets do, as far as the kernel lets this process."""
        with contextlib.suppress(OSError):
            if self.links.interface is not None and not self.is_here(address):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.links.device.encode() + b"\0")

    def kind(self, interface: NetInterface) -> str:
        """The interface's kind as netlink says it, "vf" for a virtual function, or "" for other hardware."""
        return "vf" if interface.name in self.virtual_functions else interface.kind

    def offloaded(self, interface: NetInterface) -> bool:
        """Whether its frames go past the host's bridges and NAT."""
        return self.kind(interface) in OFFLOADED


def look(config: Config | None, certificates: tuple[str, ...] = ()) -> DiagnosisContext:
    """Read the interfaces and resolve the peers' names. Raises NetError when the kernel shows no interfaces."""
    here = snapshot()
    hanging = children(here)
    place = _elsewhere(config, hanging) if config else None
    targets, more = _targets(config) if config and place is None else ((), ())
    tls = config.links.tls if config else None
    return DiagnosisContext(
        config=config,
        snapshot=here,
        virtual_functions=frozenset(
            found.name for found in here.interfaces if os.path.lexists(f"/sys/class/net/{found.name}/device/physfn")
        ),
        targets=targets,
        more=more,
        elsewhere=place,
        children=hanging,
        certificates=(*((tls.certificate, tls.ca) if tls else ()), *certificates),
        links=LinkWay() if place else _links(config),
    )


def _elsewhere(config: Config, hanging: tuple[ChildInterface, ...] | Unchecked) -> ProxyPlace | None:
    """Where the proxy of this configuration is, if not in this namespace: a container's file was given on the host. It
    is where that proxy runs, or whose interface hangs on one of this host's and has the address.
    """
    listen = config.links.listen.host
    if listen == AUTO or is_bindable(listen):
        return None
    pid = running(f"{config.run_dir}/{ADMIN_SOCKET}")
    if pid is not None and elsewhere(pid):
        return ProxyPlace(label(pid), pid)
    for child in hanging if isinstance(hanging, tuple) else ():
        if any(text.partition("/")[0] == without_scope(listen) for text in child.addresses):
            return ProxyPlace(child.label, child.pid)
    return None


def _targets(config: Config) -> tuple[tuple[PeerTarget, ...], tuple[Unchecked, ...]]:
    """The peers of the file, and with a control plane those that the running proxy knows; of many, those first to which
    it has a link.
    """
    addresses = {name: peer.address for name, peer in config.peers.items()}
    more: list[Unchecked] = []
    if config.control is not None:
        # Imported here: it takes a tenth of a second, which a static mesh need not pay.
        from control.api import admin

        try:
            status, _ = admin.ask(f"{config.run_dir}/{ADMIN_SOCKET}", "/status", Status)
            for peer in sorted(status.peers, key=lambda peer: peer.state != "up"):
                addresses.setdefault(peer.name, host_port(peer.address))
        except (admin.NoAnswer, ValueError) as error:
            more.append(Unchecked("peers of the control plane", f"only the running proxy knows them: {error}"))
    names = list(addresses)
    if len(names) > MOST:
        more.append(Unchecked(f"ways to {len(names) - MOST} more peers", f"no more than {MOST} are looked at"))
    return tuple(_target(name, addresses[name]) for name in names[:MOST]), tuple(more)


def _links(config: Config | None) -> LinkWay:
    if config is None or config.links.listen.host == AUTO:  # not leased yet
        return LinkWay()
    try:
        return choose(host_network(), config.links.listen.host, config.links.interface, arp_ignore)
    except OSError as error:
        return LinkWay(None, f"the kernel does not tell the interfaces ({error.strerror})")


def _target(peer: str, address: TcpAddress) -> PeerTarget:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        return PeerTarget(peer=peer, name=address.host, address=None, problem=(error.strerror or str(error)).lower())
    return PeerTarget(peer=peer, name=address.host, address=str(found), port=address.port)
