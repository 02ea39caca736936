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
from typing import NamedTuple, Self

import structlog

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from control.base.system.unixsock import BoundUnixSocket, SocketIdentity, bind_unix, inherit_unix
from proxy.config.schema import UpstreamConfig
from proxy.errors import StartError
from proxy.pump.deadlines import Deadlines
from proxy.pump.listener import Listener
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, prepare_local

log = structlog.get_logger()

BACKLOG = 4096

Accepted = Callable[[LocalSocket], None]
Rights = tuple[int, int | str | None, int | str | None]
"""Mode, owner and group."""


class InheritableListener(NamedTuple):
    """A listening socket of another process: of a proxy that hands over, or of systemd."""

    sock: socket.socket
    lock: int | None = None
    """Descriptor of the lock of its file, and what the file is, if a proxy made it."""
    birth: SocketIdentity | None = None
    mode: int = 0o666
    """The rights that it has now, as an upstream's; with a file of a proxy's only."""
    owner: int | str | None = None
    group: int | str | None = None

    def close(self) -> None:
        """For one that nobody wants."""
        self.sock.close()
        if self.lock is not None:
            os.close(self.lock)


class OpenListener:
    """One listening socket; `close` closes it, with its file if it has one that is ours. Made by `open` or `inherit`.

    Attributes:
        upstream: the one that it is for.
    """

    def __init__(
        self, upstream: UpstreamConfig, sock: socket.socket, bound: BoundUnixSocket | None, ours: bool
    ) -> None:
        self.upstream = upstream
        self._rights = _rights(upstream)
        self._sock, self._bound, self._ours = sock, bound, ours
        self._listener: Listener | None = None

    @classmethod
    def open(cls, name: str, upstream: UpstreamConfig) -> Self:
        """A new one for the upstream of this name. Raises StartError."""
        listen = upstream.listen
        if isinstance(listen, TcpAddress):
            return cls(upstream, bind_tcp(name, listen), None, True)
        bound = bind_unix(listen.path, mode=upstream.mode, owner=upstream.owner, group=upstream.group)
        return cls(upstream, bound.socket, bound, True)

    @classmethod
    def inherit(cls, address: Address, inheritable: InheritableListener) -> Self:
        """One that another process has made, and that is not this one's own (`own`) before that has let go. Raises
        StartError.
        """
        upstream = UpstreamConfig(
            listen=address, mode=inheritable.mode, owner=inheritable.owner, group=inheritable.group
        )
        if isinstance(address, UnixAddress) and inheritable.lock is not None and inheritable.birth is not None:
            bound = inherit_unix(address.path, inheritable.sock, inheritable.lock, inheritable.birth)
            return cls(upstream, bound.socket, bound, False)
        sock = inheritable.sock
        sock.setblocking(False)
        prepare_local(sock)
        sock.listen(BACKLOG)  # a second time: only the length of its queue may change
        return cls(upstream, sock, None, True)

    def become(self, upstream: UpstreamConfig) -> None:
        """Be the socket of this upstream, which has the same address. Raises StartError; then as before."""
        if self._ours:
            self._give(_rights(upstream))
        self.upstream = upstream

    def _give(self, rights: Rights) -> None:
        before = self._rights
        if self._bound is None or rights == before:
            return
        try:
            _give(self._bound, rights)
        except StartError:
            with suppress(StartError):
                _give(self._bound, before)
            raise
        self._rights = rights

    def inheritable(self) -> InheritableListener:
        """The socket for another process; the descriptors stay this one's."""
        if self._bound is None:
            return InheritableListener(self._sock)
        return InheritableListener(self._sock, self._bound.lock, self._bound.birth, *self._rights)

    @property
    def in_place(self) -> bool:
        """Whether callers find it: nobody has removed its file."""
        return self._bound is None or self._bound.in_place

    def own(self) -> None:
        """The process that had it before has let go. Rights that cannot be changed stay as they are, with a line in the
        log.
        """
        self._ours = True
        if self._bound is not None:
            self._bound.own()
        try:
            self._give(_rights(self.upstream))
        except StartError as error:
            log.error("a socket keeps the rights that it had", error=str(error))

    def listen(self, pump: Pump, deadlines: Deadlines, accepted: Accepted) -> None:
        """Hand connections, from now on, to `accepted`."""
        if self._listener is None:
            self._listener = Listener(pump, deadlines, self._sock, str(self.upstream.listen), accepted)
        else:
            self._listener.accepted = accepted

    def hold(self, hold: bool) -> None:
        """Leave connections waiting in its queue, for another process that may own the file by now; or go on to take
        them.
        """
        if self._bound is not None:
            self._bound.own(not hold)
        if self._listener is not None:
            self._listener.hold(hold)

    def finish(self) -> None:
        """Take in the connections that wait to be accepted; `close` follows."""
        if self._listener is not None:
            self._listener.finish()

    def leave(self) -> None:
        """It is another process's from now on: close the descriptors, and nothing else."""
        if self._bound is not None:
            self._bound.own(False)
        self.close()

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._listener is not None:
            self._listener.stop()
        (self._bound or self._sock).close()


class ListenerSet:
    """All that are open.

    Attributes:
        opened: those of upstreams; spare: those of another process that no upstream has wanted yet. (With a control
            plane, the upstream may come with the next message.)
    """

    def __init__(self) -> None:
        self.opened: dict[Address, OpenListener] = {}
        self.spare: dict[Address, OpenListener] = {}

    @property
    def all(self) -> list[OpenListener]:
        """Both kinds."""
        return [*self.opened.values(), *self.spare.values()]

    def inherit(self, inheritables: Mapping[Address, InheritableListener]) -> None:
        """Take over what another process has opened. Raises StartError."""
        for address, inheritable in inheritables.items():
            self.spare[address] = OpenListener.inherit(address, inheritable)

    def prepare(self, upstreams: dict[str, UpstreamConfig], undo: ExitStack) -> dict[Address, OpenListener]:
        """The sockets of these upstreams: those that are open already, with the rights that they shall have, and new
        ones. Raises StartError. `undo` takes all of it back; nothing is accepted and nothing closed yet.
        """
        wanted: dict[Address, OpenListener] = {}
        for name, upstream in upstreams.items():
            opened = self.opened.get(upstream.listen) or self.spare.get(upstream.listen)
            if opened is None:
                opened = OpenListener.open(name, upstream)
                undo.callback(opened.close)
            elif opened.upstream != upstream:
                before = opened.upstream
                opened.become(upstream)
                undo.callback(_restore, opened, before)
            wanted[upstream.listen] = opened
        return wanted

    def finish(self, wanted: dict[Address, OpenListener]) -> None:
        """Take in what waits at those that `replace` is going to close, whose upstreams are still known."""
        for address, opened in self.opened.items():
            if address not in wanted:
                opened.finish()

    def replace(self, wanted: dict[Address, OpenListener]) -> None:
        """Keep those, close all others but the spare ones. Raises nothing."""
        before, self.opened = self.opened, wanted
        for address, opened in before.items():
            if address not in wanted:
                opened.close()
        for address in wanted:
            self.spare.pop(address, None)

    def discard(self) -> None:
        """Close those that no upstream has wanted."""
        spare, self.spare = self.spare, {}
        for opened in spare.values():
            opened.close()

    def own(self) -> None:
        """See `OpenListener.own`."""
        for opened in self.all:
            opened.own()

    def leave(self) -> None:
        """All of them are another process's from now on."""
        everything = self.all
        self.opened, self.spare = {}, {}
        for opened in everything:
            opened.leave()


def _restore(opened: OpenListener, before: UpstreamConfig) -> None:
    with suppress(StartError):
        opened.become(before)


def _rights(upstream: UpstreamConfig) -> Rights:
    return upstream.mode, upstream.owner, upstream.group


def _give(bound: BoundUnixSocket, rights: Rights) -> None:
    mode, owner, group = rights
    bound.give(mode=mode, owner=owner, group=group)


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
