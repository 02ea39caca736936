"""The listening sockets of the upstreams, by address: opened before anything depends on them, closed when nothing does.

An address outlives the upstream that it was for: two upstreams that exchange theirs keep both sockets, and no caller
ever finds nobody there.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from control.reading.addresses import Address, TcpAddress, UnixAddress
from control.system.unixsock import Birth, BoundUnixSocket, bind_unix, inherit_unix
from proxy.config import Upstream
from proxy.errors import StartError
from proxy.pump.deadlines import Deadlines
from proxy.pump.listener import Listener
from proxy.pump.loop import Pump
from proxy.pump.options import prepare_local

log = structlog.get_logger()

BACKLOG = 4096

Accepted = Callable[[socket.socket], None]

class Heirloom(NamedTuple):
    """A listening socket of another process: of a proxy that hands over, or of systemd."""

    sock: socket.socket
    lock: int | None = None
    """Descriptor of the lock of its file, and what the file is, if a proxy made it."""
    birth: Birth | None = None
    mode: int = 0o666
    """The rights that it has now, as an upstream's; with a file of a proxy's only."""
    owner: int | str | None = None
    group: int | str | None = None

    def close(self) -> None:
        """For one that nobody wants."""
        self.sock.close()
        if self.lock is not None:
            os.close(self.lock)


class Opened:
    """One listening socket; `close` closes it, with its file if it has one that is ours.

    Args:
        name: the upstream's, for errors.
        heirloom: the socket, if another process has made it.

    Raises StartError.
    """

    def __init__(self, name: str, upstream: Upstream, heirloom: Heirloom | None = None) -> None:
        self.upstream = upstream
        self._wanted: Upstream | None = None
        self._listener: Listener | None = None
        self._bound: BoundUnixSocket | None = None
        listen = upstream.listen
        if heirloom is not None and isinstance(listen, UnixAddress) and heirloom.lock is not None:
            assert heirloom.birth is not None
            self._bound = inherit_unix(listen.path, heirloom.sock, heirloom.lock, heirloom.birth)
            # The other process may yet go on with it: rights change when it is ours.
            self._wanted, (_, _, _, mode, owner, group) = upstream, heirloom
            self.upstream = replace(upstream, mode=mode, owner=owner, group=group)
            self._sock = self._bound.socket
        elif heirloom is not None:
            self._sock = heirloom.sock
            self._sock.setblocking(False)
            prepare_local(self._sock)
            self._sock.listen(BACKLOG)  # a second time: only the length of its queue may change
        elif isinstance(listen, UnixAddress):
            self._bound = bind_unix(listen.path, mode=upstream.mode, owner=upstream.owner, group=upstream.group)
            self._sock = self._bound.socket
        else:
            self._sock = bind_tcp(name, listen)

    def heirloom(self) -> Heirloom:
        """The socket for another process; the descriptors stay this one's."""
        if self._bound is None:
            return Heirloom(self._sock)
        return Heirloom(self._sock, self._bound.lock, self._bound.birth, *_rights(self.upstream))

    def own(self) -> None:
        """The process that had it before has let go. Its rights that cannot be changed stay as they are, with a line in
        the log.
        """
        if self._bound is not None:
            self._bound.own()
        if self._wanted is not None:
            try:
                self.become(self._wanted)
            except StartError as error:
                log.error("a socket keeps the rights that it had", error=str(error))
            self._wanted = None

    def hold(self, hold: bool) -> None:
        """Leave connections waiting in its queue, or go on to take them."""
        if self._listener is not None:
            self._listener.hold(hold)

    def leave(self) -> None:
        """It is another process's from now on: close the descriptors, and nothing else."""
        if self._bound is not None:
            self._bound.own(False)
        self.close()

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


NONE: Mapping[Address, Heirloom] = {}


class Sockets:
    """All that are open."""

    def __init__(self) -> None:
        self.opened: dict[Address, Opened] = {}

    def prepare(
        self, upstreams: dict[str, Upstream], undo: ExitStack, heirlooms: Mapping[Address, Heirloom] = NONE
    ) -> dict[Address, Opened]:
        """The sockets of these upstreams: those that are open already, with the rights that they shall have, and new
        ones. Raises StartError. `undo` takes all of it back; nothing is accepted and nothing closed yet.

        Args:
            heirlooms: sockets of other processes; those that fit an upstream are taken over, the others are left.
        """
        wanted: dict[Address, Opened] = {}
        for name, upstream in upstreams.items():
            opened = self.opened.get(upstream.listen)
            if opened is None:
                opened = Opened(name, upstream, heirlooms.get(upstream.listen))
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


    def leave(self) -> None:
        """All of them are another process's from now on."""
        opened, self.opened = self.opened, {}
        for each in opened.values():
            each.leave()


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
