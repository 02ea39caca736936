"""Listening for local containers, and what all their calls share."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from functools import partial

from control.reading.addresses import TcpAddress, UnixAddress
from proxy.config import Config, Limits, Service, Upstream
from proxy.errors import CloseReason, StartError
from proxy.outbound.call import Call
from proxy.outbound.unixsock import bind_unix
from proxy.pool.pool import Pool
from proxy.pump.connecting import Connector
from proxy.pump.deadlines import Deadlines
from proxy.pump.listener import Listener
from proxy.pump.loop import Pump
from proxy.pump.options import prepare_local
from proxy.pump.splice import Splice
from proxy.pump.tally import Tally
from proxy.routing.allow import Allowed
from proxy.routing.balance import order
from proxy.routing.table import Route, Table

BACKLOG = 4096
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Outbound:
    """Owns the upstreams' listening sockets, from `listen` to `close`.

    Attributes:
        calls: those that have not ended; splices: those of them that stay on this host.
    """

    def __init__(
        self,
        config: Config,
        *,
        pump: Pump,
        deadlines: Deadlines,
        connector: Connector,
        pools: dict[str, Pool],
        table: Table,
        allowed: Allowed,
        tally: Tally,
    ) -> None:
        self.pump, self.deadlines, self.connector = pump, deadlines, connector
        self.calls: dict[Call, None] = {}
        self.splices: dict[Splice, Call] = {}
        self.tally = tally
        self.table = table
        self.allowed = allowed
        self._config = config
        self._endpoints = {name: _endpoints(config, table.find(name), pools) for name in config.upstreams}
        self._sockets = ExitStack()
        self._listeners: list[Listener] = []

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

    def listen(self) -> None:
        """Listen for every upstream. Raises StartError; what was opened before is closed then."""
        with ExitStack() as sockets:
            bound = [(name, self._bind(name, sockets)) for name in self._config.upstreams]
            self._sockets = sockets.pop_all()
        for name, sock in bound:
            listen = self._config.upstreams[name].listen
            tcp = isinstance(listen, TcpAddress)
            self._listeners.append(
                Listener(self.pump, self.deadlines, sock, str(listen), partial(self._accepted, name, tcp))
            )

    def _bind(self, name: str, sockets: ExitStack) -> socket.socket:
        upstream = self._config.upstreams[name]
        if isinstance(upstream.listen, UnixAddress):
            bound = bind_unix(upstream.listen.path, mode=upstream.mode, owner=upstream.owner, group=upstream.group)
            sockets.callback(bound.close)
            return bound.socket
        return sockets.enter_context(_bind_tcp(name, upstream.listen))

    def _accepted(self, service: str, tcp: bool, sock: socket.socket) -> None:
        call = Call(self, service, sock, tcp)
        self.calls[call] = None
        self.tally.begin()
        call.start()

    def endpoints(self, service: str) -> tuple[Service | None, list[Pool]]:
        """Who offers a service: this host, if it does, and the peers, best first."""
        local, pools = self._endpoints[service]
        if len(pools) == 1:
            return local, pools[:]
        ordered = order(pools)
        for pool in ordered[1:]:
            # One that is up gets the call; but that others are idle must not heap all calls upon it.
            if pool.idle and ordered[0].streams:
                pool.invite()
        return local, ordered

    def stop_listening(self) -> None:
        """Accept no more calls; what is open goes on. Idempotent."""
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self._sockets.close()

    def close(self) -> None:
        """End every call that no link carries (those end with their links). Idempotent."""
        self.stop_listening()
        for splice in list(self.splices):
            splice.end(CloseReason.STOPPED)
        for call in list(self.calls):
            call.give_up(CloseReason.STOPPED)
        self.pump.settle()


def _endpoints(config: Config, route: Route, pools: dict[str, Pool]) -> tuple[Service | None, list[Pool]]:
    local = config.services.get(route.service) if route.local else None
    return local, [pools[peer] for peer in route.peers]


def _bind_tcp(name: str, address: TcpAddress) -> socket.socket:
    sock = socket.socket(
        socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare_local(sock)  # Linux hands these options to the accepted sockets
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartError(f"upstreams.{name}.listen: {address}: {why}") from None
    return sock
