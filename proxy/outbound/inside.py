"""Calls from inside containers: the listeners that the door has opened in their network namespaces, which serve as the
upstreams' own do.

Whoever calls there is known by the listener: it names the service, and the container that calls.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import UpstreamConfig
from proxy.outbound.acceptor import UpstreamAcceptor
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.pump.listener import Listener
from proxy.pump.options import KeepAlive, keep_alive, prepare_local

__all__ = ["InsideListener", "InsideListeners"]

Place = tuple[int, TcpAddress]
"""Number of a namespace (SO_NETNS_COOKIE), and an address in it."""


class InsideListener:
    """One of them. Owns its descriptor of the socket; the door has another one."""

    def __init__(self, sock: socket.socket, service: str, caller: str, container: str) -> None:
        self.sock, self.service, self.caller, self.container = sock, service, caller, container
        self._listener: Listener | None = None

    def listen(self, context: CallContext[Call], address: TcpAddress) -> None:
        """Accept; called again, calls only go another way."""
        upstream = UpstreamConfig(listen=address, caller=self.caller or None)
        acceptor = UpstreamAcceptor(context, self.service, upstream, context.only_peer(self.service))
        window = context.pump.openings.of(self.service)
        held = partial(context.held_by, self.service)
        if self._listener is None:
            name = f"tcp:{address.hostport} in {self.container}"
            # `accepted`, as callers here are of other namespaces: their addresses are none of this host's.
            self._listener = Listener(
                context.pump, context.deadlines, self.sock, name, acceptor.accepted, window, held
            )
        else:
            self._listener.accepted, self._listener.window, self._listener.held = acceptor.accepted, window, held

    @property
    def failing(self) -> str:
        """As `Listener.failing`."""
        return "" if self._listener is None else self._listener.failing

    def close(self, *, finish: bool) -> None:
        """Accept no more. `finish`: accept who waits first; whoever has the socket, too, gets later ones."""
        if self._listener is not None:
            if finish:
                self._listener.finish()
            self._listener.stop()
            self._listener = None
        self.sock.close()


class InsideListeners:
    """All of them, by place.

    Attributes:
        listening: whether calls are accepted; closed: whether they will not be any more.
        kept: whether the door has the listeners, too, so that who calls can wait there for the next proxy.
    """

    def __init__(self, context: CallContext[Call]) -> None:
        self._context = context
        self._listeners: dict[Place, InsideListener] = {}
        self.listening = self.closed = self.kept = False

    def __iter__(self) -> Iterator[tuple[Place, InsideListener]]:
        return iter([*self._listeners.items()])

    def __contains__(self, place: Place) -> bool:
        return place in self._listeners

    @property
    def services(self) -> frozenset[str]:
        """The services that are called."""
        return frozenset(each.service for each in self._listeners.values())

    def add(self, place: Place, listener: InsideListener, settings: KeepAlive | None) -> None:
        """Have one more, which `listen` makes accept. It takes the place of one that is there."""
        self.remove(place)
        if self.closed:
            return listener.sock.close()
        listener.sock.setblocking(False)
        prepare_local(listener.sock)  # accepted sockets inherit these options on Linux
        keep_alive(listener.sock, settings)
        self._listeners[place] = listener

    def renamed(self, place: Place, service: str, caller: str, container: str) -> None:
        """What the door says of a listener that is there."""
        found = self._listeners[place]
        found.service, found.caller, found.container = service, caller, container

    def listen(self) -> None:
        """Accept on all of them, as the configuration says by now where calls go, unless the proxy does not accept."""
        if self.listening:
            for (_, address), listener in self._listeners.items():
                listener.listen(self._context, address)

    def remove(self, place: Place) -> None:
        """Close one. Idempotent."""
        found = self._listeners.pop(place, None)
        if found is not None:
            found.close(finish=False)

    def end(self, namespace: int) -> None:
        """Close those of a container that has ended."""
        for place in [place for place in self._listeners if place[0] == namespace]:
            self.remove(place)

    def close(self) -> None:
        """Close them for good. Who waits goes on waiting for the next proxy where the door has them, too, and is
        accepted otherwise. Idempotent.
        """
        self.listening, self.closed = False, True
        listeners, self._listeners = self._listeners, {}
        for each in listeners.values():
            each.close(finish=not self.kept)
