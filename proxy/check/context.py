"""Whom a diagnosis is about: one host's configuration, where its peers are, and the interfaces that it sees."""

from __future__ import annotations

import os
import socket

from msgspec import Struct

from control.base.reading.addresses import TcpAddress
from proxy.check.readers.namespaces import ChildInterface, children
from proxy.check.report import Unchecked
from proxy.config.schema import Config
from proxy.netdev.observe.observe import NetInterface, NetSnapshot, snapshot

OFFLOADED = frozenset({"macvlan", "macvtap", "ipvlan", "vf"})
"""Kinds of interfaces whose frames pass no bridge and no NAT of the host."""


class PeerTarget(Struct, frozen=True, kw_only=True):
    """A peer to be diagnosed. ``address`` is None when its name does not resolve; ``problem`` says why."""

    peer: str
    name: str
    """The host part of its address in the configuration."""
    address: str | None
    problem: str = ""


class DiagnosisContext(Struct, frozen=True, kw_only=True):
    """What a diagnosis is about. ``config`` is None for a machine without one: then there are no targets."""

    config: Config | None
    snapshot: NetSnapshot
    virtual_functions: frozenset[str] = frozenset()
    """Names of this namespace's interfaces that are virtual functions."""
    targets: tuple[PeerTarget, ...] = ()
    children: tuple[ChildInterface, ...] | Unchecked = ()
    """Interfaces in other namespaces that hang on one of this namespace."""
    certificates: tuple[str, ...] = ()
    """PEM files to be looked at."""

    def kind(self, interface: NetInterface) -> str:
        """The interface's kind as netlink says it, "vf" for a virtual function, or "" for other hardware."""
        return "vf" if interface.name in self.virtual_functions else interface.kind

    def offloaded(self, interface: NetInterface) -> bool:
        """Whether its frames go past the host's bridges and NAT."""
        return self.kind(interface) in OFFLOADED


def look(config: Config | None, certificates: tuple[str, ...] = ()) -> DiagnosisContext:
    """Read the interfaces and resolve the peers' names. Raises NetError when the kernel shows no interfaces."""
    here = snapshot()
    peers = config.peers if config else {}
    tls = config.links.tls if config else None
    return DiagnosisContext(
        config=config,
        snapshot=here,
        virtual_functions=frozenset(
            found.name for found in here.interfaces if os.path.lexists(f"/sys/class/net/{found.name}/device/physfn")
        ),
        targets=tuple(_target(name, peer.address) for name, peer in peers.items()),
        children=children(here),
        certificates=(*((tls.certificate, tls.ca) if tls else ()), *certificates),
    )


def _target(peer: str, address: TcpAddress) -> PeerTarget:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        return PeerTarget(peer=peer, name=address.host, address=None, problem=(error.strerror or str(error)).lower())
    return PeerTarget(peer=peer, name=address.host, address=str(found))
