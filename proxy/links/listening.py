"""The sockets on which links arrive: bound to the interface that links go through, and again when that returns."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import AsyncIterator
from typing import Protocol

import structlog
import trio

from control.base.reading.addresses import TcpAddress
from proxy.errors import HandshakeError, StartError
from proxy.links.device import LinkDevice, LinkWay, is_own
from proxy.links.rtnetlink import LOOPBACK, UP, host_network

log = structlog.get_logger()

BACKLOG = 1024
"""Connections that the kernel keeps for us to accept (bounded by net.core.somaxconn as well)."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether the interface is still the one that the socket is bound to."""
LOOK_AGAIN = 0.2
"""Seconds between two looks for the first interface."""
ADDRESS_AFTER = 30.0
"""Seconds that its address may come later, as long as the start waits for a link (`interfaces.*.up_timeout`)."""
LO = "lo"
GONE = "/"
"""No name of an interface."""


async def wait_for_network(address: TcpAddress, device: LinkDevice) -> None:
    """Return at once, except in a namespace that has nothing but lo: there somebody is about to bring an interface (a
    container with ``--network none``, and ``hostlane net attach``). Then return when the address is there, or
    `ADDRESS_AFTER` seconds after the interface.

    Raises StartError when it is told to stop meanwhile (SIGTERM, SIGINT).
    """
    if not device.look().missing or _has_interface():
        return
    # First, because until then a signal kills the process at once.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        log.warning("waiting for a network: there is no interface but lo", address=address.hostport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed, signals, address)
            while not _has_interface():  # noqa: ASYNC110 - the kernel is asked
                await trio.sleep(LOOK_AGAIN)
            with trio.move_on_after(ADDRESS_AFTER):
                # One of IPv6 is there for a second before anything can be bound to it (duplicate address detection).
                while device.look().missing or not is_own(address.host):  # noqa: ASYNC110 - the same
                    await trio.sleep(LOOK_AGAIN)
            nursery.cancel_scope.cancel()


async def _heed(signals: AsyncIterator[int], address: TcpAddress) -> None:
    await anext(signals)
    raise StartError(f"links.listen: {address.hostport}: told to stop before an interface had it")


def _has_interface() -> bool:
    try:
        return any(not found.flags & LOOPBACK and found.flags & UP for found in host_network().interfaces.values())
    except OSError:
        return True


class LinkAcceptor(Protocol):
    """Accepts on `LinkListeners.all`. While `reserved` those must not change; `renew_links`: they have."""

    reserved: bool

    def renew_links(self) -> None: ...


class LinkListeners:
    """The listeners for links; `all` is one list for as long as this lives, whatever is in it.

    A socket that is bound to an interface hears nothing from this host itself, whose packets come through lo: a second
    one does, bound to that.
    """

    def __init__(self, address: TcpAddress, device: LinkDevice) -> None:
        self._address, self._device = address, device
        self.all: list[trio.SocketListener] = []
        self._old: list[trio.SocketListener] = []
        """Replaced, and not closed yet: somebody may be about to accept there."""
        self._inherited: socket.socket | None = None
        self._name, self._index = "", 0
        """Of the interface that the first one is bound to; 0: none."""
        self._was_bound = self._stale = False

    def open(self, inherited: socket.socket | None = None) -> None:
        """Listen. Raises StartError with one line that says what to do.

        Args:
            inherited: a socket that another process has opened, or what stands in for it
                (proxy/agent/handover/receiver.py), used instead of a new one: `use` follows. This owns it.
        """
        way = self._device.look()
        if way.missing and self._device.named:
            raise StartError(f"links.interface: {way.why}")
        if inherited is not None:
            self._inherited = inherited
            return
        try:
            self._replace(way)
        except (OSError, HandshakeError) as error:
            number = error.errno if isinstance(error, OSError) else errno.EADDRNOTAVAIL
            hint = {
                errno.EADDRINUSE: "the port is in use: is another proxy running?",
                errno.EADDRNOTAVAIL: "no interface of this host has that address",
                errno.EACCES: "not permitted: choose a port from 1024 up",
            }.get(number or 0, getattr(error, "strerror", None) or str(error))
            raise StartError(f"links.listen: {self._address.hostport}: {hint}") from None

    def use(self) -> None:
        """The inherited socket, if there is one, has come: listen there."""
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            way = self._device.look()
            self._take(inherited, way)
            if self._is_elsewhere(way):
                self._listen_anew(way)

    def close(self) -> None:
        """Close all. Idempotent."""
        if self._inherited is not None:
            self._inherited.close()
        for listener in (*self.all, *self._old):
            listener.socket.close()
        self._old.clear()

    def look_again(self) -> None:
        """The addresses of this host, or its interfaces, are others now."""
        self._stale = True

    async def keep(self, acceptor: LinkAcceptor) -> None:
        """Until cancelled, see to it that the sockets are bound to the interface as it is now: made anew under the same
        name it is another one to the kernel, and the address may have moved to another one (`look_again`). Returns if
        they are meant to be bound to none, and have never been.
        """
        while self._old or self._was_bound or self._device.meant:
            await trio.sleep(LOOK_EVERY)
            while self._old:  # nobody accepts there any more
                self._old.pop().socket.close()
            if not acceptor.reserved and (self._stale or not self._is_current):
                self._stale = False
                if self._follow(self._device.look()):
                    acceptor.renew_links()

    @property
    def _is_current(self) -> bool:
        return self._index != 0 and _index(self._name) == self._index

    def _follow(self, way: LinkWay) -> bool:
        """Whether the listeners are others now."""
        # `why`: they should be bound and cannot be; what is bound stays so.
        if way.missing or way.why or (way.interface.index if way.interface else 0) == self._index:
            return False
        return self._listen_anew(way)

    def _listen_anew(self, way: LinkWay) -> bool:
        """Whether it could; if not, a line in the log says why, and the next look tries again."""
        where = way.device or "any"
        try:
            if self.all and bound_to(self.all[0].socket) == "" and self._device.bind(self.all[0].socket, way):
                self._bound_to(way)
                return True
            self._replace(way)
        except (OSError, HandshakeError) as error:
            self._stale = True
            log.warning("cannot listen for links", interface=where, address=self._address.hostport,
                        error=getattr(error, "strerror", None) or str(error))  # fmt: skip
            return False
        log.info("listening for links again", interface=where, address=self._address.hostport)
        return True

    def _take(self, inherited: socket.socket, way: LinkWay) -> None:
        self.all.append(_listener(inherited))
        if way.interface is None:
            return
        bound = bound_to(inherited)
        if bound == way.device or (bound == "" and self._device.bind(inherited, way)):
            self._device.bound(way)
            self._bound_to(way)

    def _is_elsewhere(self, way: LinkWay) -> bool:
        """Whether the socket that another process has opened is bound to something else than links are to be: only
        CAP_NET_RAW could change that.
        """
        bound = bound_to(self.all[0].socket)
        return bound != "" and bound != way.device and not way.missing and not way.why

    def _replace(self, way: LinkWay) -> None:
        """Put a new socket in the place of what is in `all`, which is closed later. Raises OSError, HandshakeError, and
        nothing has changed.
        """
        sock = _new(self._address)
        try:
            bound = self._device.bind(sock, way)
            if not bound:  # as those in `all` are, whose port it could not have otherwise
                _share_port(self.all, sock)
            _start(sock, self._address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        except BaseException:
            sock.close()
            raise
        self._old += self.all
        self.all[:] = [_listener(sock)]
        self._name, self._index = "", 0
        if bound:
            self._bound_to(way)

    def _bound_to(self, way: LinkWay) -> None:
        assert way.interface is not None
        self._name, self._index, self._was_bound = way.device, way.interface.index, True
        self._listen_locally()

    def _listen_locally(self) -> None:
        """For proxies and probes on this host, which alone are worse off if it cannot be opened."""
        sock = _new(self._address)
        try:
            # So that the next process of this host can open its own before this one closes (proxy/agent/handover).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LO.encode() + b"\0")
            address = TcpAddress(self._address.host, self.all[0].socket.getsockname()[1])
            _start(sock, address)
        except OSError as error:
            sock.close()
            log.warning("cannot listen for links of this host itself", error=error.strerror)
            return
        self.all.append(_listener(sock))


def bound_to(sock: socket.socket | trio.socket.SocketType) -> str:
    """The interface that a socket is bound to; empty: none; `GONE`: one that is gone."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode(errors="replace")
    except OSError as error:
        return GONE if error.errno == errno.ENODEV else ""


def _new(address: TcpAddress) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)


def _start(sock: socket.socket, address: TcpAddress) -> None:
    """As trio.open_tcp_listeners does it."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address.host, address.port))
    sock.listen(BACKLOG)


def _share_port(listeners: list[trio.SocketListener], sock: socket.socket) -> None:
    """If there are listeners, let this socket have their port: nobody else, as it takes all to agree, and one user."""
    for each in listeners:
        each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
