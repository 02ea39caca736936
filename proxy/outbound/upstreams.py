"""Listening for local containers."""

from __future__ import annotations

from contextlib import ExitStack

from control.base.reading.addresses import Address
from proxy.config.schema import Config, UpstreamConfig
from proxy.errors import CloseReason
from proxy.outbound.acceptor import UpstreamAcceptor
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.sockets import ListenerSet, OpenListener
from proxy.routing.allow import AllowRules
from proxy.routing.table import RoutingTable


class Outbound:
    """Owns the upstreams' listening sockets, from `open` to `close`.

    Attributes:
        context: what the calls that come in share.
        sockets: where they come in.
    """

    def __init__(self, config: Config, context: CallContext[Call]) -> None:
        self.context = context
        self._config = config
        self.sockets = ListenerSet()
        self._listening = False

    @property
    def upstreams(self) -> dict[str, UpstreamConfig]:
        """The configured upstreams."""
        return self._config.upstreams

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

    def prepare(self, config: Config, undo: ExitStack) -> dict[Address, OpenListener]:
        """See `ListenerSet.prepare`; `adopt` follows, or `undo`."""
        return self.sockets.prepare(config.upstreams, undo)

    def adopt(
        self, config: Config, table: RoutingTable, allowed: AllowRules, sockets: dict[Address, OpenListener]
    ) -> None:
        """Take another configuration over, with the sockets that `prepare` made of it and the pools that it has. Calls
        that are carried go on; those that wait for a link look where they may go now. Raises nothing.
        """
        self.sockets.finish(sockets)
        self._config, context = config, self.context
        moved = context.adopt(config, table, allowed)
        if self._listening:
            self._listen(sockets)
        else:
            self.sockets.replace(sockets)
        for call in [call for call in context.calls if context.peers(call.service) is None]:
            call.orphaned()
        if moved:
            for call in [call for call in context.calls if call.service in moved]:
                call.rerouted(here=moved[call.service])
        context.pump.settle()

    def _listen(self, sockets: dict[Address, OpenListener]) -> None:
        self.sockets.replace(sockets)
        if not self._listening:
            return
        context = self.context
        for name, upstream in self._config.upstreams.items():
            acceptor = UpstreamAcceptor(context, name, upstream, context.only_peer(name))
            sockets[upstream.listen].listen(context.pump, context.deadlines, acceptor.accepted)

    def stop_listening(self) -> None:
        """Accept no more calls than those whose callers wait already; what is open goes on. Idempotent."""
        self.sockets.finish({})
        self.sockets.replace({})
        self.sockets.discard()
        self.context.pump.settle()

    def close(self) -> None:
        """End every call that no link carries (those end with their links). Idempotent."""
        self.stop_listening()
        for splice in list(self.context.splices):
            splice.end(CloseReason.STOPPED)
        for call in list(self.context.calls):
            call.give_up(CloseReason.STOPPED)
        self.context.pump.settle()
