"""What all calls share: which hosts each may go to, ejected hosts, and the parts of the proxy that they use."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Generic, TypeVar

import structlog

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config, ProxyLimits, ServiceConfig
from proxy.errors import CloseReason
from proxy.mux.frames import Via
from proxy.pool.pool import Pool
from proxy.pump.connecting import Connector
from proxy.pump.deadlines import Deadlines
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket
from proxy.pump.ourselves import caller_of, is_loopback
from proxy.pump.splice import Splice
from proxy.pump.streamcounts import Tallies
from proxy.pump.streamstats import StreamStats
from proxy.routing.allow import AllowRules
from proxy.routing.balance import NOBODY, choose, waits
from proxy.routing.ejection import Ejections
from proxy.routing.table import RoutingTable, ServiceHosts, called

log = structlog.get_logger()

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}

C = TypeVar("C")
"""A call. (The class, `outbound.call.Call`, is built on this module.)"""


class CallContext(Generic[C]):
    """One for the proxy, handed to every call. Owns no socket.

    Args:
        pools: the peers' pools by name. Not a copy: the agent adds and removes pools in it.
        random: returns numbers evenly spread over [0, 1).

    Attributes:
        calls: the calls that wait for a connection to a local service, or for a link.
        held: descriptors that calls hold, by service: who takes a call adds 1 when it is counted as opened, and takes 1
            off when it is counted as ended; a splice is one more, for the service's socket.
        splices: the open splices, each with its call. (The calls that a lane carries are not kept here.)
        ejections: hosts that get no streams for a while because opens failed there.
        inside: services that are called from inside containers (`outbound.inside`).
    """

    def __init__(
        self,
        config: Config,
        *,
        pump: Pump,
        deadlines: Deadlines,
        connector: Connector,
        pools: Mapping[str, Pool],
        table: RoutingTable,
        allowed: AllowRules,
        stats: StreamStats,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.pump, self.deadlines, self.connector = pump, deadlines, connector
        self.calls: dict[C, None] = {}
        self.splices: dict[Splice, C] = {}
        self.held = Tallies()
        self.inside: frozenset[str] = frozenset()
        self.stats = stats
        self.ejections = Ejections()
        self._random = random
        self._pools = pools
        self._adopt(config, table, allowed)

    def adopt(
        self, config: Config, table: RoutingTable, allowed: AllowRules, inside: frozenset[str] = frozenset()
    ) -> dict[str, bool]:
        """Use another configuration, whose pools exist already. Returns the services whose hosts have changed, and for
        each whether this host has come to offer it, or offers it in another way. Raises nothing.
        """
        before, self.inside = self._endpoints, inside
        self._adopt(config, table, allowed)
        return {
            service: endpoints[0] is not None and endpoints[0] != before[service][0]
            for service, endpoints in self._endpoints.items()
            if before.get(service, endpoints) != endpoints
        }

    def _adopt(self, config: Config, table: RoutingTable, allowed: AllowRules) -> None:
        self._config, self.table, self.allowed = config, table, allowed
        self._endpoints = {name: _endpoints(config, table.find(name), self._pools) for name in self.called}
        self.held.keep(self._endpoints)

    def held_by(self, service: str) -> int:
        """Descriptors that the calls of a service hold."""
        return self.held[service].count

    @property
    def called(self) -> set[str]:
        """The services that are called from this host (`routing.table.called`)."""
        return called(self._config, self.inside)

    @property
    def host(self) -> str:
        """This host's name."""
        return self._config.host

    @property
    def own_address(self) -> TcpAddress:
        """The address that this host listens on for links; the loopback address if it listens on all addresses."""
        listen = self._config.links.listen
        return TcpAddress(LOOPBACK.get(listen.host, listen.host), listen.port)

    @property
    def limits(self) -> ProxyLimits:
        """The configured limits."""
        return self._config.limits

    def endpoints(self, service: str) -> tuple[ServiceConfig | None, list[Pool]]:
        """Who offers a service: this host's configuration of it, and the peers' pools. The first is None if this host
        does not offer it, or is ejected while a peer with a link is not. The caller must not change the list.
        """
        local, pools = self._endpoints[service]
        if local is not None and self.ejections.held:
            ejected = self.ejected(service)
            if self.host in ejected and any(pool.up and pool.name not in ejected for pool in pools):
                local = None
        return local, pools

    def peers(self, service: str) -> list[Pool] | None:
        """The pools of the peers that offer a service; None: no socket of this host leads to it any more."""
        found = self._endpoints.get(service)
        return None if found is None else found[1]

    def way_of(self, sock: LocalSocket) -> Via | None:
        """How a call through TCP came here, as far as others need to know: it may be a connection of this proxy, or of
        another one. None: from a caller on this host.
        """
        source = caller_of(sock)
        if source is None:
            return None
        if hops := self.connector.own.after(source):
            return Via(hops)
        return None if is_loopback(source[0]) else Via(0, source)

    def only_peer(self, service: str) -> Pool | None:
        """The pool of the only peer that offers a service; None if this host or several peers do, or nobody does."""
        local, pools = self._endpoints[service]
        return pools[0] if local is None and len(pools) == 1 else None

    def has(self, pool: Pool) -> bool:
        """Whether the pool's peer is still one of this host's peers."""
        return self._pools.get(pool.name) is pool

    def choose(self, service: str, pools: list[Pool]) -> Pool | None:
        """As `routing.balance.choose`: the pool to open a stream at, or None to wait for a link."""
        return choose(pools, self._random, self.ejected(service))

    def waits(self, service: str, pools: list[Pool]) -> list[Pool]:
        """As `routing.balance.waits`: the pools to wait at."""
        return waits(pools, self._random, self.ejected(service))

    def ejected(self, service: str) -> frozenset[str]:
        """The hosts that get no streams of this service for now."""
        return self.ejections.ejected(service, monotonic()) if self.ejections.held else NOBODY

    def failed(self, service: str, host: str, reason: CloseReason) -> None:
        """Count that a host did not deliver a stream; log it if that ejects the host."""
        seconds = self.ejections.failed(service, host, reason, monotonic())
        if seconds is not None:
            kind = (service, host, reason)
            log.warning("host ejected", kind=kind, service=service, offered_by=host, reason=reason.label, for_s=seconds)


def _endpoints(
    config: Config, route: ServiceHosts, pools: Mapping[str, Pool]
) -> tuple[ServiceConfig | None, list[Pool]]:
    local = config.services.get(route.service) if route.local else None
    return local, [pools[peer] for peer in route.peers]
