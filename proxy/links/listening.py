"""The sockets on which links arrive: bound to the interface that links go through, and again when that returns.

An address that this host does not have yet is waited for: at boot one may come late (a card, DHCP, duplicate address
detection, `hostlane net attach` for a container without a network), and calls within this host need none.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from control.base.reading.addresses import TcpAddress, is_link_local, socket_address
from proxy.errors import HandshakeError, StartError
from proxy.links.device import LinkDevice, LinkWay

log = structlog.get_logger()

BACKLOG = 1024
"""Connections that the kernel keeps for us to accept (bounded by net.core.somaxconn as well)."""
LOOK_EVERY = 1.0
"""Seconds between two looks while something is awaited, and from news (`look_again`) to the next look at most."""
REST = 15.0
"""Seconds between two looks whether the interface is still the one that the socket is bound to, where the kernel's news
do not come (a sandbox without netlink)."""
LO = "lo"
GONE = "/"
"""No name of an interface."""


class LinkAcceptor(Protocol):
    """Accepts on `LinkListeners.all`. While `reserved` those must not change; `renew_links`: they have."""

    reserved: bool

    def renew_links(self) -> None: ...


class LinkListeners:
    """The listeners for links.

    A socket that is bound to an interface hears nothing from this host itself, whose packets come through lo: a second
    one does, bound to that.

    Attributes:
        all: one list for as long as this lives, whatever is in it.
        missing: why peers cannot reach this host, in one line; empty: its address was there at the last look.
        came: called when an address that was missing at the start is there.
    """

    def __init__(self, address: TcpAddress, device: LinkDevice) -> None:
        self._address, self._device = address, device
        self.all: list[trio.SocketListener] = []
        self.missing = ""
        self.came: Callable[[], object] = lambda: None
        self._old: list[trio.SocketListener] = []
        """Replaced, and not closed yet: somebody may be about to accept there."""
        self._inherited: socket.socket | None = None
        self._name, self._index = "", 0
        """Of the interface that the first one is bound to; 0: none."""
        self._was_bound = self._stale = False
        self._news = trio.Event()

    def open(self, inherited: socket.socket | None = None) -> None:
        """Listen, or wait for the address (`missing`): `keep` listens then. Raises StartError with one line that says
        what to do.

        Args:
            inherited: a socket that another process has opened, or what stands in for it
                (proxy/agent/handover/receiver.py), used instead of a new one: `use` follows. This owns it.
        """
        if inherited is not None:
            self._inherited = inherited
            return
        if (problem := self._begin()) is not None:
            raise StartError(problem)

    def _begin(self) -> str | None:
        """Listen for the first time, unless the address is `missing`. Returns what else is in the way; None: nothing
        is.
        """
        way = self._device.look()
        self.missing = self._told(way)
        if way.missing:
            return None
        try:
            self._replace(way)
        except (OSError, HandshakeError) as error:
            if isinstance(error, HandshakeError) or error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
                # Gone since the look; or of IPv6, and not usable before the kernel has asked who else has it.
                self.missing = self._told(LinkWay(None, "that address cannot be used yet", missing=True))
                return None
            hint = {
                errno.EADDRINUSE: "the port is in use: is another proxy running?",
                errno.EACCES: "not permitted: choose a port from 1024 up",
            }.get(error.errno or 0, error.strerror or str(error))
            return f"links.listen: {self._address.hostport}: {hint}"
        return None

    def _told(self, way: LinkWay) -> str:
        return f"links.listen: {self._address.hostport}: {way.why}: peers cannot reach this host" if way.missing else ""

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
        self._news.set()

    async def keep(self, acceptor: LinkAcceptor) -> None:
        """Until cancelled, see to it that the sockets are bound to the interface as it is now: made anew under the same
        name it is another one to the kernel, and the address may have moved to another one (`look_again`), or not be
        there yet. What is waited for is logged once.
        """
        waits = not self.all and self.missing != ""
        if waits:
            log.warning("waiting for the links' address", address=self._address.hostport, error=self.missing)
        while True:
            await self._pause(waits or acceptor.reserved)
            while self._old:  # nobody accepts there any more
                self._old.pop().socket.close()
            if acceptor.reserved:
                continue
            if waits:
                waits = not self._has_come()
                if not waits:
                    acceptor.renew_links()
                    self.came()
            elif self._stale or ((self._was_bound or self._device.meant) and not self._is_current):
                self._stale = False
                way = self._device.look()
                self.missing = self._told(way)
                if self._follow(way):
                    acceptor.renew_links()

    async def _pause(self, awaits: bool) -> None:
        """Until the next look."""
        if not (awaits or self._old or self._stale):
            self._news = trio.Event()
            with trio.move_on_after(REST - LOOK_EVERY):
                await self._news.wait()
        await trio.sleep(LOOK_EVERY)

    def _has_come(self) -> bool:
        before, problem = self.missing, self._begin()
        if problem is not None:
            self.missing = problem
        if self.missing:
            if self.missing != before:
                log.warning("waiting for the links' address", address=self._address.hostport, error=self.missing)
            return False
        where = self._name or "any"
        log.info("the links' address is there: listening", interface=where, address=self._address.hostport)
        return True

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
        """For proxies and probes on this host, which alone are worse off if it cannot be opened. (What this host sends
        to a link-local address of its own comes in through that interface, as far as sockets see.)
        """
        if is_link_local(self._address.host):
            return
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
    sock.bind(socket_address(address.host, address.port))
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
