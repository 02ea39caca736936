"""Listening for local containers, and what all their calls share."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from time import monotonic

import structlog

from control.base.reading.addresses import Address, TcpAddress
from proxy.config.schema import Config, Limits, Service, Upstream
from proxy.errors import CloseReason
from proxy.outbound.call import Call
from proxy.outbound.entrance import Entrance
from proxy.outbound.sockets import Opened, Sockets
from proxy.pool.pool import Pool
from proxy.pump.connecting import Connector
from proxy.pump.deadlines import Deadlines
from proxy.pump.loop import Pump
from proxy.pump.splice import Splice
from proxy.pump.tally import Tally
from proxy.routing.allow import Allowed
from proxy.routing.balance import NOBODY, choose, waits
from proxy.routing.ejection import Ejections
from proxy.routing.table import Route, Table

log = structlog.get_logger()

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Outbound:
    """Owns the upstreams' listening sockets, from `open` to `close`.

    Args:
        pools: those of the peers, by name; as they are at each moment.
        random: returns numbers evenly spread over [0, 1).

    Attributes:
        sockets: where they come in.
        calls: those that nothing carries yet; splices: those that stay on this host. (The others are with the lanes.)
        ejections: hosts that are left alone because opens failed there.
    """

    def __init__(
        self,
        config: Config,
        *,
        pump: Pump,
        deadlines: Deadlines,
        connector: Connector,
        pools: Mapping[str, Pool],
        table: Table,
        allowed: Allowed,
        tally: Tally,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.pump, self.deadlines, self.connector = pump, deadlines, connector
        self.calls: dict[Call, None] = {}
        self.splices: dict[Splice, Call] = {}
        self.tally = tally
        self.ejections = Ejections()
        self._random = random
        self.table = table
        self.allowed = allowed
        self._config = config
        self._pools = pools
        self._endpoints = {name: _endpoints(config, table.find(name), pools) for name in config.upstreams}
        self.sockets = Sockets()
        self._listening = False

    @property
    def host(self) -> str:
        """This host's name."""
        return self._config.host

    @property
    def own_address(self) -> TcpAddress:
        """Where this host is in the mesh, as its peers see it; the loopback address if it listens on all it has."""
        listen = self._config.links.listen
        return TcpAddress(LOOPBACK.get(listen.host, listen.host), listen.port)

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The configured upstreams."""
        return self._config.upstreams

    @property
    def limits(self) -> Limits:
        """The configured limits."""
        return self._config.limits

    def open(self) -> None:
        """Open a socket for every upstream. Callers may connect then; `listen` accepts them. Raises StartError; what
        was opened before is closed then.
        """
        with ExitStack() as undo:
            wanted = self.prepare(self._config, undo)
            undo.pop_all()
        self.sockets.replace(wanted)

    def listen(self) -> None:
        """Accept calls from now on."""
        self._listening = True
        self._listen(self.sockets.opened)

    def prepare(self, config: Config, undo: ExitStack) -> dict[Address, Opened]:
        """See `Sockets.prepare`; `adopt` follows, or `undo`."""
        return self.sockets.prepare(config.upstreams, undo)

    def adopt(self, config: Config, table: Table, allowed: Allowed, sockets: dict[Address, Opened]) -> None:
        """Take another configuration over, with the sockets that `prepare` made of it and the pools that it has. Calls
        that are carried go on; those that wait for a link look where they may go now. Raises nothing.
        """
        self.sockets.finish(sockets)
        before = self._endpoints
        self._config, self.table, self.allowed = config, table, allowed
        self._endpoints = {name: _endpoints(config, table.find(name), self._pools) for name in config.upstreams}
        if self._listening:
            self._listen(sockets)
        else:
            self.sockets.replace(sockets)
        for call in [call for call in self.calls if call.service not in self._endpoints]:
            call.orphaned()
        moved = {name for name, endpoints in self._endpoints.items() if before.get(name, endpoints) != endpoints}
        if moved:
            for call in [call for call in self.calls if call.service in moved]:
                local = self._endpoints[call.service][0]
                call.rerouted(here=local is not None and local != before[call.service][0])
        self.pump.settle()

    def _listen(self, sockets: dict[Address, Opened]) -> None:
        self.sockets.replace(sockets)
        if not self._listening:
            return
        for name, upstream in self._config.upstreams.items():
            local, pools = self._endpoints[name]
            entrance = Entrance(self, name, upstream, pools[0] if local is None and len(pools) == 1 else None)
            sockets[upstream.listen].listen(self.pump, self.deadlines, entrance.accepted)

    def endpoints(self, service: str) -> tuple[Service | None, list[Pool]]:
        """Who offers a service: this host, if it does and is not ejected while a peer could do it; and the peers, in a
        list that is not the caller's to change.
        """
        local, pools = self._endpoints[service]
        if local is not None and self.ejections.held:
            ejected = self.ejected(service)
            if self.host in ejected and any(pool.up and pool.name not in ejected for pool in pools):
                local = None
        return local, pools

    def peers(self, service: str) -> list[Pool] | None:
        """The peers that offer a service; None: this host calls it no more."""
        found = self._endpoints.get(service)
        return None if found is None else found[1]

    def has(self, pool: Pool) -> bool:
        """Whether its peer is one of this host's; not one that was removed."""
        return self._pools.get(pool.name) is pool

    def choose(self, service: str, pools: list[Pool]) -> Pool | None:
        """See `routing.balance`."""
        return choose(pools, self._random, self.ejected(service))

    def waits(self, service: str, pools: list[Pool]) -> list[Pool]:
        """See `routing.balance`."""
        return waits(pools, self._random, self.ejected(service))

    def ejected(self, service: str) -> frozenset[str]:
        """The hosts that are left alone."""
        return self.ejections.ejected(service, monotonic()) if self.ejections.held else NOBODY

    def failed(self, service: str, host: str, reason: CloseReason) -> None:
        """A host did not deliver a stream."""
        seconds = self.ejections.failed(service, host, reason, monotonic())
        if seconds is not None:
            log.warning("host ejected", service=service, offered_by=host, reason=reason.label, for_s=seconds)

    def stop_listening(self) -> None:
        """Accept no more calls than those whose callers wait already; what is open goes on. Idempotent."""
        self.sockets.finish({})
        self.sockets.replace({})
        self.sockets.discard()
        self.pump.settle()

    def close(self) -> None:
        """End every call that no link carries (those end with their links). Idempotent."""
        self.stop_listening()
        for splice in list(self.splices):
            splice.end(CloseReason.STOPPED)
        for call in list(self.calls):
            call.give_up(CloseReason.STOPPED)
        self.pump.settle()


def _endpoints(config: Config, route: Route, pools: Mapping[str, Pool]) -> tuple[Service | None, list[Pool]]:
    local = config.services.get(route.service) if route.local else None
    return local, [pools[peer] for peer in route.peers]
