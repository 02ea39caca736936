"""The listening sockets of the upstreams, by address: opened before anything depends on them, closed when nothing does.

An address outlives the upstream that it was for: two upstreams that exchange theirs keep both sockets, and no caller
ever finds nobody there.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

from control.reading.addresses import Address, TcpAddress, UnixAddress
from control.system.unixsock import BoundUnixSocket, bind_unix
from proxy.config import Upstream
from proxy.errors import StartError
from proxy.pump.deadlines import Deadlines
from proxy.pump.listener import Listener
from proxy.pump.loop import Pump
from proxy.pump.options import prepare_local

BACKLOG = 4096

Accepted = Callable[[socket.socket], None]


class Opened:
    """One listening socket; `close` closes it, with its file if it has one."""

    def __init__(self, name: str, upstream: Upstream) -> None:
        """Raises StartError."""
        self.upstream = upstream
        self._listener: Listener | None = None
        self._bound: BoundUnixSocket | None = None
        listen = upstream.listen
        if isinstance(listen, UnixAddress):
            self._bound = bind_unix(listen.path, mode=upstream.mode, owner=upstream.owner, group=upstream.group)
            self._sock = self._bound.socket
        else:
            self._sock = bind_tcp(name, listen)

    def become(self, upstream: Upstream) -> None:
        """Be the socket of this upstream, which has the same address. Raises StartError; then as before."""
        before, rights = self.upstream, _rights(upstream)
        if self._bound is not None and rights != _rights(before):
            try:
                _give(self._bound, upstream)
            except StartError:
                with suppress(StartError):
                    _give(self._bound, before)
                raise
        self.upstream = upstream

    def listen(self, pump: Pump, deadlines: Deadlines, accepted: Accepted) -> None:
        """Hand connections, from now on, to `accepted`."""
        if self._listener is None:
            self._listener = Listener(pump, deadlines, self._sock, str(self.upstream.listen), accepted)
        else:
            self._listener.accepted = accepted

    def finish(self) -> None:
        """Take in the connections that wait to be accepted; `close` follows."""
        if self._listener is not None:
            self._listener.finish()

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._listener is not None:
            self._listener.stop()
        (self._bound or self._sock).close()


class Sockets:
    """All that are open."""

    def __init__(self) -> None:
        self.opened: dict[Address, Opened] = {}

    def prepare(self, upstreams: dict[str, Upstream], undo: ExitStack) -> dict[Address, Opened]:
        """The sockets of these upstreams: those that are open already, with the rights that they shall have, and new
        ones. Raises StartError. `undo` takes all of it back; nothing is accepted and nothing closed yet.
        """
        wanted: dict[Address, Opened] = {}
        for name, upstream in upstreams.items():
            opened = self.opened.get(upstream.listen)
            if opened is None:
                opened = Opened(name, upstream)
                undo.callback(opened.close)
            elif opened.upstream != upstream:
                before = opened.upstream
                opened.become(upstream)
                undo.callback(_restore, opened, before)
            wanted[upstream.listen] = opened
        return wanted

    def finish(self, wanted: dict[Address, Opened]) -> None:
        """Take in what waits at those that `replace` is going to close, whose upstreams are still known."""
        for address, opened in self.opened.items():
            if address not in wanted:
                opened.finish()

    def replace(self, wanted: dict[Address, Opened]) -> None:
        """Keep those, close all others. Raises nothing."""
        before, self.opened = self.opened, wanted
        for address, opened in before.items():
            if address not in wanted:
                opened.close()


def _restore(opened: Opened, before: Upstream) -> None:
    with suppress(StartError):
        opened.become(before)


def _rights(upstream: Upstream) -> tuple[int, int | str | None, int | str | None]:
    return upstream.mode, upstream.owner, upstream.group


def _give(bound: BoundUnixSocket, upstream: Upstream) -> None:
    bound.give(mode=upstream.mode, owner=upstream.owner, group=upstream.group)


def bind_tcp(name: str, address: TcpAddress) -> socket.socket:
    """Listen for an upstream. Raises StartError."""
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
