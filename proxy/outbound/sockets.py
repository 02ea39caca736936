"""The listening sockets of the upstreams, by address: opened before anything depends on them, closed when nothing does.

A socket stays open as long as any upstream has its address: when two upstreams exchange their addresses, both sockets
stay, and no caller is refused meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple, Self

import structlog
import trio

from control.base.reading.addresses import Address, TcpAddress, UnixAddress, socket_address
from control.base.system.unixsock import BoundUnixSocket, SocketIdentity, bind_unix, inherit_unix, rebind_unix
from proxy.config.schema import UpstreamConfig
from proxy.errors import StartError
from proxy.outbound.queues import ListenQueues
from proxy.pump.deadlines import Deadlines
from proxy.pump.descriptor import Descriptor
from proxy.pump.listener import Listener
from proxy.pump.loop import Pump
from proxy.pump.openings import OpeningWindow
from proxy.pump.options import KeepAlive, LocalSocket, keep_alive, prepare_local

log = structlog.get_logger()

BACKLOG = 4096
SLICE = 256
"""Sockets whose files are looked at before other tasks run: half a millisecond."""
MOST_LOST = 4
"""Sockets that have lost their file and go on beside the new one, for each upstream: whoever has the file mounted by
itself into a container reaches the socket that it was made for."""

SO_ATTACH_FILTER, SO_DETACH_FILTER, BPF_RET = 26, 27, 6
"""asm-generic/socket.h and linux/bpf_common.h: a packet filter, and its instruction that ends it with a length to keep
(0: drop the packet). Python's socket module has none of them."""
SO_PASSRIGHTS = 83
"""Linux 6.16 (asm-generic/socket.h); Python's socket module does not have it yet."""

Accepted = Callable[[LocalSocket | Descriptor], None]
Rights = tuple[int, int | str | None, int | str | None]
"""Mode, owner and group."""


UNKNOWN = -1
"""No mode: the file has some."""


class InheritableListener(NamedTuple):
    """A listening socket of another process: of a proxy that hands over, or of systemd."""

    sock: socket.socket
    lock: int | None = None
    """Descriptor of the lock file, if a proxy made the socket's file; `birth` identifies that file."""
    birth: SocketIdentity | None = None
    mode: int = 0o666
    """Mode, owner and group of the file now, written as in an upstream, or `UNKNOWN`; they count only if a proxy made
    the file."""
    owner: int | str | None = None
    group: int | str | None = None
    kept: bool = False
    """Whether systemd has the socket too, and keeps it when every proxy has closed it."""

    def close(self) -> None:
        """Close both descriptors of a socket that nobody has taken; its file stays."""
        self.sock.close()
        if self.lock is not None:
            os.close(self.lock)


def prepare_passed(sock: socket.socket) -> None:
    """Give a socket that listens already, and that no proxy has opened, the options of those that a proxy opens."""
    sock.setblocking(False)
    prepare_local(sock)
    sock.listen(BACKLOG)  # sets the length of its queue


class OpenListener:
    """One listening socket, made by `open` or `inherit`. `close` closes it, and removes its file if that is ours.

    Attributes:
        upstream: the upstream that it is for.
        kept: whether systemd keeps the socket, so that callers who wait there wait for the next process.
    """

    def __init__(
        self, upstream: UpstreamConfig, sock: socket.socket, bound: BoundUnixSocket | None, ours: bool, kept: bool
    ) -> None:
        self.upstream, self.kept = upstream, kept
        self._rights = _rights(upstream)
        self._sock, self._bound, self._ours = sock, bound, ours
        self._listener: Listener | None = None
        self._lost: list[LostSocket] = []
        self._held = False
        if sock.family == socket.AF_UNIX:
            refuse_descriptors(sock)

    @property
    def sock(self) -> socket.socket:
        """The socket, to look at."""
        return self._sock

    def queue(self, queues: ListenQueues) -> int | None:
        """Callers that wait in the kernel; None: it does not say."""
        return queues.length(self._sock)

    @classmethod
    def open(cls, key: str, upstream: UpstreamConfig) -> Self:
        """Open a new socket for the upstream that stands at this key of the configuration. Raises StartError."""
        listen = upstream.listen
        if isinstance(listen, TcpAddress):
            return cls(upstream, bind_tcp(key, listen), None, True, False)
        bound = bind_unix(listen.path, mode=upstream.mode, owner=upstream.owner, group=upstream.group)
        return cls(upstream, bound.socket, bound, True, False)

    @classmethod
    def inherit(cls, address: Address, inheritable: InheritableListener) -> Self:
        """Use a socket that another process has made, or what stands in for it (proxy/agent/handover/receiver.py). Its
        file belongs to that process until `own` is called. Raises StartError.
        """
        upstream = UpstreamConfig(
            listen=address, mode=inheritable.mode, owner=inheritable.owner, group=inheritable.group
        )
        if isinstance(address, UnixAddress) and inheritable.lock is not None and inheritable.birth is not None:
            bound = inherit_unix(address.path, inheritable.sock, inheritable.lock, inheritable.birth)
            return cls(upstream, bound.socket, bound, False, False)
        return cls(upstream, inheritable.sock, None, True, inheritable.kept)

    def become(self, upstream: UpstreamConfig) -> None:
        """Serve this upstream from now on, which has the same address, and take on its mode, owner and group. Raises
        StartError, and nothing has changed.
        """
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
        """What another process needs to know of the socket. Its descriptors are not duplicated: they stay ours."""
        if self._bound is None:
            return InheritableListener(self._sock, kept=self.kept)
        return InheritableListener(self._sock, self._bound.lock, self._bound.birth, *self._rights)

    @property
    def in_place(self) -> bool:
        """Whether callers find it: its file is still there. True of a socket whose file is not ours to look after."""
        return self._bound is None or self._bound.in_place

    def own(self) -> None:
        """The process that handed the socket over has given it up: the file is ours now, and gets the upstream's mode,
        owner and group. If those cannot be changed they stay, and a line is logged.
        """
        self._ours = True
        if self._bound is not None:
            self._bound.own()
        elif self._sock.family == socket.AF_UNIX:
            with suppress(OSError):  # closed already
                self._sock.listen(BACKLOG)  # as `BoundUnixSocket.own`: it names the process that listens there
        elif not self.kept:  # a filter of one that is kept is somebody else's: `finish` sets none there
            let_everybody_in(self._sock)
        try:
            self._give(_rights(self.upstream))
        except StartError as error:
            log.error("a socket keeps the rights that it had", error=str(error))

    def restore(self) -> bool:
        """Bind the path again if somebody has removed the socket's file (rm, systemd-tmpfiles, a directory made anew);
        callers find a new socket there, and the old one goes on. Returns whether that was so. Raises StartError, and
        nothing has changed.
        """
        if self._bound is None or not self._ours or self._held or self._bound.in_place:
            return False
        mode, owner, group = self._rights
        bound = rebind_unix(self._bound, mode=mode, owner=owner, group=group)
        self._lost.append(LostSocket(self._bound, self._listener))
        self._sock, self._bound = bound.socket, bound
        refuse_descriptors(self._sock)
        if self._listener is not None:
            self._listener = self._listener.beside(self._sock)
        for lost in self._lost[:-MOST_LOST]:
            lost.close()
        self._lost = self._lost[-MOST_LOST:]
        return True

    def keep_alive(self, settings: KeepAlive | None) -> None:
        """As `options.keep_alive`, for the connections that are accepted from now on."""
        keep_alive(self._sock, settings)

    def listen(
        self,
        pump: Pump,
        deadlines: Deadlines,
        accepted: Accepted,
        window: OpeningWindow,
        held: Callable[[], int] = lambda: 0,
    ) -> None:
        """Accept connections and call `accepted` with each; called again, it only changes whom they go to. `window` and
        `held`: as `Listener` has them.
        """
        if self._listener is None:
            self._listener = Listener(pump, deadlines, self._sock, str(self.upstream.listen), accepted, window, held)
            return
        for listener in self._listeners:
            listener.accepted, listener.window, listener.held = accepted, window, held

    @property
    def held_back(self) -> str:
        """As `Listener.held_back`."""
        return "" if self._listener is None else self._listener.held_back

    @property
    def failing(self) -> str:
        """As `Listener.failing`, wherever callers may come."""
        return next(filter(None, (listener.failing for listener in self._listeners)), "")

    @property
    def _listeners(self) -> list[Listener]:
        """Those that accept: of the socket, and of those that have lost their file."""
        found = [self._listener, *(lost.listener for lost in self._lost)]
        return [listener for listener in found if listener is not None]

    def hold(self, hold: bool) -> None:
        """True: accept nothing and leave connections in the kernel's queue, since another process may be about to take
        them, and the file. False: accept again, and own the file again.
        """
        self._held = hold
        if self._bound is not None:
            self._bound.own(not hold)
        for listener in self._listeners:
            listener.hold(hold)

    def finish(self) -> None:
        """Accept the connections that wait in the kernel's queue, since closing would reset them; `close` follows.
        Nobody gets into the queue any more meanwhile, unless another process has the socket, too.
        """
        if self._listener is None:
            return
        if self._bound is not None:
            self._bound.refuse()
        elif self._sock.family != socket.AF_UNIX and not (self.kept or self._held):
            let_nobody_in(self._sock)
        self._listener.finish()

    def leave(self) -> None:
        """Another process has the socket from now on: close the descriptors, and leave the file."""
        self.stay()
        self.close()

    def stay(self) -> None:
        """`close` is to leave the file: systemd has the socket, or another process."""
        if self._bound is not None:
            self._bound.own(False)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        lost, self._lost = self._lost, []
        for each in lost:
            each.close()
        if self._listener is not None:
            self._listener.stop()
        (self._bound or self._sock).close()


class LostSocket(NamedTuple):
    """A socket of an upstream that has lost its file to somebody, and what accepts there."""

    bound: BoundUnixSocket
    listener: Listener | None

    def close(self) -> None:
        """Accept who waits, whom nobody else can, and no more."""
        if self.listener is not None:
            self.listener.finish()
            self.listener.stop()
        self.bound.close()


class ListenerSet:
    """All listening sockets of upstreams.

    Attributes:
        opened: those that an upstream uses, by address.
        spare: inherited ones that no upstream uses yet. (With a control plane, the map may still bring the upstream.)
    """

    def __init__(self) -> None:
        self.opened: dict[Address, OpenListener] = {}
        self.spare: dict[Address, OpenListener] = {}

    @property
    def all(self) -> list[OpenListener]:
        """Those in use and the spare ones."""
        return [*self.opened.values(), *self.spare.values()]

    async def out_of_place(self) -> list[OpenListener]:
        """Those whose files are gone. Other tasks run in between."""
        found: list[OpenListener] = []
        for number, opened in enumerate(self.all):
            if number % SLICE == SLICE - 1:
                await trio.lowlevel.checkpoint()
            if not opened.in_place:
                found.append(opened)
        return found

    def inherit(self, inheritables: Mapping[Address, InheritableListener]) -> None:
        """Make sockets that another process has opened the spare ones. Raises StartError."""
        for address, inheritable in inheritables.items():
            self.spare[address] = OpenListener.inherit(address, inheritable)

    def prepare(self, upstreams: dict[str, UpstreamConfig], undo: ExitStack) -> dict[Address, OpenListener]:
        """The sockets of these upstreams, by their keys in the configuration: those that are open already, with mode,
        owner and group changed where they differ, and new ones. Accepts nothing and closes nothing yet; `undo`
        takes all of it back. Raises StartError.
        """
        wanted: dict[Address, OpenListener] = {}
        for key, upstream in upstreams.items():
            opened = self.opened.get(upstream.listen) or self.spare.get(upstream.listen)
            if opened is None:
                opened = OpenListener.open(key, upstream)
                undo.callback(opened.close)
            elif opened.upstream != upstream:
                before = opened.upstream
                opened.become(upstream)
                undo.callback(_restore, opened, before)
            wanted[upstream.listen] = opened
        return wanted

    def finish(self, wanted: dict[Address, OpenListener], *, stops: bool = False) -> None:
        """Accept what waits at the sockets that `replace` is about to close, as long as their upstreams are known;
        `stops`: as the proxy stops. Callers at sockets that are `kept` then wait for the next process.
        """
        for address, opened in self.opened.items():
            if stops and opened.kept:
                opened.stay()
            elif address not in wanted:
                opened.finish()

    def replace(self, wanted: dict[Address, OpenListener]) -> None:
        """Use these sockets, and close all other ones that were in use; spare ones stay. Raises nothing."""
        before, self.opened = self.opened, wanted
        for address, opened in before.items():
            if address not in wanted:
                opened.close()
        for address in wanted:
            self.spare.pop(address, None)

    def discard(self) -> None:
        """Close the spare ones."""
        spare, self.spare = self.spare, {}
        for opened in spare.values():
            opened.close()

    def own(self) -> None:
        """As `OpenListener.own`, for all of them."""
        for opened in self.all:
            opened.own()

    def leave(self) -> None:
        """As `OpenListener.leave`, for all of them."""
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


def refuse_descriptors(listener: socket.socket) -> None:
    """Have the kernel refuse descriptors (SCM_RIGHTS) that a caller of this Unix socket passes: they cannot travel, and
    the caller gets EPERM for them. Accepted sockets inherit it, so it costs a call nothing. Before Linux 6.16 there is
    no such option: the kernel closes them when their bytes are read, and nobody is told.
    """
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


def let_nobody_in(listener: socket.socket) -> None:
    """Have the kernel drop what arrives at this TCP socket: who connects from now on tries again after a second, and
    finds the next process then. (Shutting it down, as a Unix socket, would reset those who wait.)
    """
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(nothing)))


def let_everybody_in(listener: socket.socket) -> None:
    """Take back what `let_nobody_in` did: the process that was about to stop is gone, another one has the socket."""
    with suppress(OSError):  # ENOENT: nobody did
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def bind_tcp(key: str, address: TcpAddress) -> socket.socket:
    """Listen for what stands at this key of the configuration. Raises StartError."""
    sock = socket.socket(
        socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        if sock.family == socket.AF_INET6:  # [::] takes IPv4 too, whatever net.ipv6.bindv6only says
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare_local(sock)  # accepted sockets inherit these options on Linux
        sock.bind(socket_address(address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartError(f"{key}.listen: {address}: {why}") from None
    return sock
