"""The configured upstreams and the CONNECT socket: their listening sockets, and what a change of the configuration
means for open calls.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import trio

from control.base.reading.addresses import Address
from control.base.system.keptsocket import LOOK, SocketKeeper
from proxy.config.schema import Config, TcpConfig, UpstreamConfig
from proxy.errors import CloseReason
from proxy.outbound.acceptor import UpstreamAcceptor
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.connectsocket import ConnectSocket
from proxy.outbound.directories import ContainerDirectories
from proxy.outbound.inside import InsideListeners
from proxy.outbound.sockets import ListenerSet, OpenListener
from proxy.pump.options import KeepAlive
from proxy.routing.allow import AllowRules
from proxy.routing.table import RoutingTable


class Outbound:
    """Owns the upstreams' listening sockets, from `open` to `close`.

    Attributes:
        context: what all calls share.
        sockets: the listening sockets.
        connect: takes the callers at the one where they name the service; its `run` is to run while this listens.
        inside: those inside containers; directories: those that containers have mounted.
        keeper: binds sockets again whose files are gone, and knows what is in the way.
        bound_again: called when sockets have been bound again whose files were gone.
    """

    def __init__(self, config: Config, context: CallContext[Call]) -> None:
        self.context = context
        self._config = config
        self.sockets = ListenerSet()
        self.inside = InsideListeners(context)
        self.directories = ContainerDirectories(config.socket_dir)
        self.keeper = SocketKeeper()
        self.connect = ConnectSocket(context, config.connect)
        self._listening = False
        self.bound_again: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Open a socket for every upstream, and that for CONNECT. Callers can connect from then on; `listen` accepts
        them. Raises StartError, and the sockets that it has opened are closed again.
        """
        with ExitStack() as undo:
            wanted = self.prepare(self._config, undo)
            undo.pop_all()
        self.sockets.replace(wanted)
        self._keep_alive()

    def listen(self) -> None:
        """Accept calls from now on, also on the sockets that `adopt` opens later."""
        self._listening = self.inside.listening = True
        self._listen(self.sockets.opened)
        self._keep_alive()  # again: something else may have stood in for the sockets (proxy/agent/handover/receiver.py)

    def prepare(self, config: Config, undo: ExitStack) -> dict[Address, OpenListener]:
        """As `ListenerSet.prepare`; `adopt` follows, or `undo` is closed."""
        wanted = self.sockets.prepare(_listening(config), undo)
        return wanted | self.directories.prepare(self.sockets, undo)

    def adopt(
        self, config: Config, table: RoutingTable, allowed: AllowRules, sockets: dict[Address, OpenListener]
    ) -> None:
        """Use another configuration, with the sockets that `prepare` has made for it; its pools exist already. Calls
        that have a lane or a splice go on; those that wait for a link look for a host anew. Raises nothing.
        """
        self.sockets.finish(sockets)
        self._config, context = config, self.context
        self.directories.adopt()
        self.connect.config = config.connect
        moved = context.adopt(config, table, allowed, self.of_containers)
        if self._listening:
            self._listen(sockets)
        else:
            self.sockets.replace(sockets)
        self.directories.tidy()
        self._keep_alive()
        for call in [call for call in context.calls if context.peers(call.service) is None]:
            call.orphaned()
        if moved:
            for call in [call for call in context.calls if call.service in moved]:
                call.rerouted(here=moved[call.service])
        context.pump.settle()

    @property
    def of_containers(self) -> frozenset[str]:
        """The services that containers call as their labels say."""
        return self.inside.services | self.directories.services

    @property
    def settings(self) -> TcpConfig:
        """Those of TCP connections."""
        return self._config.tcp

    def _keep_alive(self) -> None:
        settings = KeepAlive.of(self._config.tcp)
        for opened in self.sockets.opened.values():
            opened.keep_alive(settings)

    def _listen(self, sockets: dict[Address, OpenListener]) -> None:
        self.sockets.replace(sockets)
        if not self._listening:
            return
        context = self.context
        context.pump.openings.keep(context.called)
        for name, upstream in self._config.upstreams.items():
            self._accept(name, upstream, sockets[upstream.listen])
        for address, (service, upstream) in self.directories.serving.items():
            self._accept(service, upstream, sockets[address])
        if (config := self._config.connect) is not None:
            connect = self.connect
            accept, count = connect.accept, partial(getattr, connect, "open")
            sockets[config.listen].listen(context.pump, context.deadlines, accept, connect.window, count)
        self.inside.listen()

    def _accept(self, service: str, upstream: UpstreamConfig, opened: OpenListener) -> None:
        context = self.context
        acceptor = UpstreamAcceptor(context, service, upstream, context.only_peer(service))
        held = partial(context.held_by, service)
        window = context.pump.openings.of(service)
        opened.listen(context.pump, context.deadlines, acceptor.accept, window, held)

    def anew(self, service: str) -> None:
        """Who hears of a service's streams has changed."""
        if not self._listening:
            return
        places = [(name, upstream.listen, upstream) for name, upstream in self._config.upstreams.items()]
        places += [(name, address, upstream) for address, (name, upstream) in self.directories.serving.items()]
        for name, address, upstream in places:
            if name == service and (opened := self.sockets.opened.get(address)) is not None:
                self._accept(service, upstream, opened)
        self.inside.listen()

    def held_back(self, address: Address) -> str:
        """Why callers there wait longer than others; empty: they do not, or nothing listens there."""
        opened = self.sockets.opened.get(address)
        return "" if opened is None else opened.held_back

    def failing(self) -> list[str]:
        """A line for each address at which this machine cannot accept a call for now, with the reason."""
        found = [(str(each.upstream.listen), each.failing) for each in self.sockets.all]
        found += [(f"tcp:{place[1].hostport} in {each.container}", each.failing) for place, each in self.inside]
        return [f"{listen}: cannot accept a connection: {why}" for listen, why in found if why]

    async def keep_in_place(self) -> None:
        """Look every LOOK seconds whether the sockets' files are there, and bind those again that somebody has removed,
        until cancelled. What is in the way is logged once.
        """
        while True:
            await trio.sleep(LOOK)
            gone = await self.sockets.out_of_place()
            self.keeper.mend({str(opened.upstream.listen): partial(self._restore, opened) for opened in gone})
            if gone:
                self.bound_again()

    def _restore(self, opened: OpenListener) -> bool:
        return self.sockets.opened.get(opened.upstream.listen) is opened and opened.restore()

    def stop_listening(self) -> None:
        """Accept the callers that wait in the kernel's queues, then close the sockets, and only then remove their
        files. Open calls go on. Callers at sockets that systemd keeps wait for the next process. Idempotent.
        """
        self.sockets.finish({}, stops=True)
        self.sockets.replace({})
        self.sockets.discard()
        self.inside.close()
        self.context.pump.settle()

    def close(self) -> None:
        """Stop listening, and end every splice and every call that waits, as STOPPED. (Calls that have a lane end with
        its session.) Idempotent.
        """
        self.stop_listening()
        for splice in list(self.context.splices):
            splice.end(CloseReason.STOPPED)
        for call in list(self.context.calls):
            call.give_up(CloseReason.STOPPED)
        self.context.pump.settle()


def _listening(config: Config) -> dict[str, UpstreamConfig]:
    """What has a listening socket, by its key."""
    found = {f"upstreams.{name}": upstream for name, upstream in config.upstreams.items()}
    return found if config.connect is None else {**found, "connect": config.connect.socket}
