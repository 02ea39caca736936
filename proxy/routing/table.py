"""The routing table: which hosts offer a service. Immutable; a new map makes a new table (sans-IO)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxy.config.schema import Config


@dataclass(frozen=True, slots=True)
class ServiceHosts:
    """The hosts that offer one service."""

    service: str
    local: bool
    """Whether this host does; it then comes first, since nothing is nearer."""
    peers: tuple[str, ...]


def called(config: Config, inside: Iterable[str] = ()) -> set[str]:
    """The services that are, or can be, called from this host: those that have an upstream, those that the CONNECT
    socket leads to, and those that are called from `inside` containers.
    """
    names = {*config.upstreams, *inside}
    if config.connect is None:
        return names
    if config.connect.services != "all":
        return names.union(config.connect.services)
    return names.union(config.services, *(peer.services for peer in config.peers.values()))


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """The hosts of each service, by the service's name."""

    routes: Mapping[str, ServiceHosts] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Config, inside: Iterable[str] = ()) -> RoutingTable:
        """The table of a static mesh: what `peers` and `services` say. `inside`: as `called`."""
        offers: dict[str, list[str]] = {name: [] for name in sorted({*called(config, inside), *config.services})}
        for peer, offered in config.peers.items():
            # Its services may be many, and few of them called from here.
            for service in offered.services:
                if service in offers and offers[service][-1:] != [peer]:
                    offers[service].append(peer)
        return cls({name: ServiceHosts(name, name in config.services, tuple(peers)) for name, peers in offers.items()})

    def find(self, service: str) -> ServiceHosts:
        """The hosts of a service; none of them if nobody offers it."""
        return self.routes.get(service) or ServiceHosts(service, False, ())

    def needed_by(self, peer: str) -> bool:
        """Whether this host offers a service for which that peer has no third host to turn to, as far as is known here.
        (What the peer offers itself it does not call here.)
        """
        return any(hosts.local and not set(hosts.peers) - {peer} for hosts in self.routes.values())
