"""The routing table: which hosts offer a service. Immutable; a new map makes a new table (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.config import Config


@dataclass(frozen=True, slots=True)
class Route:
    """Who offers one service."""

    service: str
    local: bool
    """Whether this host does; it then comes first, since nothing is nearer."""
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Routes by service name."""

    routes: Mapping[str, Route] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Config) -> Table:
        """The table of a static mesh: what `peers` and `services` say."""
        names = set(config.upstreams) | set(config.services)
        return cls({name: _route(config, name) for name in sorted(names)})

    def find(self, service: str) -> Route:
        """The route to a service; one without hosts if nobody offers it."""
        return self.routes.get(service) or Route(service, False, ())


def _route(config: Config, service: str) -> Route:
    peers = tuple(name for name, peer in config.peers.items() if service in peer.services)
    return Route(service, service in config.services, peers)
