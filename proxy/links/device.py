"""Through which interface links go: a macvlan or virtual function that has the address of ``links.listen``, whatever
the routes say.

A host often has a second interface in the subnet of its macvlan: the NIC below. The kernel then sends what leaves from
the macvlan's address through whichever route it finds first, mostly the NIC's. A socket that is bound to an interface
(SO_BINDTODEVICE) sends and receives through that one alone; before Linux 5.7 that took CAP_NET_RAW.

Where the address is one of a NIC itself, the routes decide, unless the NIC is named: links to a container on a bridge
of this host, into a VPN, or over a macvlan beside the NIC to one of its children (`hostlane check`, unreachable-child)
go through other interfaces than the NIC, and come through them.

Such a socket hears nothing that comes in elsewhere. So the sockets are bound only if peers send to this interface: with
arp_ignore 0, the kernel's default, the NIC answers ARP for the macvlan's address too, mostly first (ip-sysctl.rst).
Then they stay unbound, which is said once with what mends it, and are bound as soon as that is done. IPv6 has no such
thing: there an interface answers for its own addresses alone.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, cast

import structlog
import trio

from control.base.reading.addresses import is_bindable
from proxy.config.netvalues import ANY, AUTO
from proxy.errors import CloseReason, HandshakeError
from proxy.links.rtnetlink import (
    LOOPBACK,
    NO_ARP,
    UP,
    HostInterface,
    HostNetwork,
    InterfaceAddress,
    NetworkView,
    host_network,
)

log = structlog.get_logger()

_APART = frozenset({"macvlan", "macvtap", "ipvlan"})
"""Kinds that somebody has made so that what goes through them goes past the NIC's own layers; besides these, virtual
functions."""
_ONE_SEGMENT = frozenset({"macvlan", "macvtap"})
"""Kinds with a MAC of their own that hear the broadcasts of their parent."""


class LinkWay(NamedTuple):
    """What links are bound to. ``interface`` None: nothing; ``why`` then says what is in the way, if they should be.
    ``missing``: no interface has the address, or the one named does not exist.
    """

    interface: HostInterface | None = None
    why: str = ""
    missing: bool = False
    mend: str = ""
    """The command that takes away what is in the way, if one does."""

    @property
    def device(self) -> str:
        """The interface's name; empty if there is none."""
        return self.interface.name if self.interface else ""


Neighbours = Callable[[HostNetwork, HostInterface], Iterable[str]]


def choose(
    network: HostNetwork,
    listen: str,
    wanted: str,
    arp_ignore: Callable[[str], int],
    neighbours: Neighbours | None = None,
) -> LinkWay:
    """Decide (sans-IO).

    Args:
        listen: the IP address of ``links.listen``; wanted: ``links.interface``.
        arp_ignore: the value that counts for an interface.
        neighbours: as `others_on_segment`, which it is if not given.
    """
    neighbours = neighbours or others_on_segment
    anywhere = ipaddress.ip_address(listen).is_unspecified
    if wanted == ANY or (wanted == AUTO and anywhere):
        return LinkWay()
    bearers = network.bearers(listen)
    interface = network.named(wanted) if wanted != AUTO else bearers[0] if bearers else None
    if interface is None:
        return LinkWay(
            None, f"there is no interface {wanted}" if wanted != AUTO else "no interface has that address", True
        )
    if wanted == AUTO and interface.kind not in _APART and not is_function(interface.name):
        return LinkWay()
    if not anywhere and interface not in bearers:
        return LinkWay(None, f"{interface.name} does not have {listen}", True)
    if ":" not in listen and (lax := [name for name in neighbours(network, interface) if not arp_ignore(name)]):
        mend = " ".join(f"net.ipv4.conf.{name}.arp_ignore=1 net.ipv4.conf.{name}.arp_announce=2" for name in lax)
        return LinkWay(None, f"{', '.join(lax)} may answer ARP for it too", mend=f"sysctl -w {mend}")
    return LinkWay(interface)


def others_on_segment(network: HostNetwork, interface: HostInterface) -> Iterator[str]:
    """Names of the interfaces that hear the same ARP requests, as far as the kernel tells: a macvlan's parent, that
    one's other children, the device of a virtual function, and what has an IPv4 address in the same subnet.
    """
    subnets = {item.network for item in network.addresses if item.interface == interface.index and _is_shared(item)}
    near = {item.interface for item in network.addresses if _is_shared(item) and item.network in subnets}
    below, function = {_segment(interface)}, is_function(interface.name)
    for found in network.interfaces.values():
        hears = found.index in near or _segment(found) in below
        hears = hears or (function and _is_function_of(interface.name, found.name))
        if found != interface and hears and found.flags & UP and not found.flags & (LOOPBACK | NO_ARP):
            yield found.name


def _is_shared(item: InterfaceAddress) -> bool:
    return item.network.version == 4 and item.network.num_addresses > 1


def _segment(interface: HostInterface) -> int:
    """The index of the interface whose segment this one is on."""
    return interface.parent if interface.kind in _ONE_SEGMENT and interface.parent else interface.index


def is_function(name: str) -> bool:
    """Whether an interface is a virtual function."""
    return os.path.lexists(f"/sys/class/net/{name}/device/physfn")


def _is_function_of(name: str, parent: str) -> bool:
    return os.path.lexists(f"/sys/class/net/{name}/device/physfn/net/{parent}")


def arp_ignore(interface: str) -> int:
    """The kernel takes the greater of ``all`` and the interface's own; 0 where it cannot be read."""
    found = [0]
    for name in ("all", interface):
        try:
            with open(f"/proc/sys/net/ipv4/conf/{name}/arp_ignore") as file:
                found.append(int(file.read()))
        except (OSError, ValueError):
            pass
    return max(found)


class LinkDevice:
    """Binds the links' sockets. Says in the log what they are bound to whenever that changes, and nothing else. `close`
    follows `ready`.

    Args:
        listen, wanted: as `choose` takes them.
    """

    def __init__(self, listen: str, wanted: str = AUTO) -> None:
        self._listen, self._wanted = listen, wanted
        self._last: LinkWay | None = None
        self._bound: HostInterface | None = None
        """What sockets were bound to lately."""
        self._refused = ""
        self._network: NetworkView | None = None
        self._near: tuple[HostNetwork, HostInterface, list[str]] | None = None
        self._is_ready, self._news = False, cast("Callable[[], object] | None", None)

    def ready(self) -> None:
        """The proxy has started. What there is to say about that was kept until now: a start that fails is one line.
        From now on a look is cheap while nothing changes.
        """
        self._is_ready = True
        self._network = NetworkView()
        if self._news is not None:
            self._news()

    @property
    def source(self) -> str | None:
        """The address that dials come from; None: any."""
        return None if ipaddress.ip_address(self._listen).is_unspecified else self._listen

    @property
    def meant(self) -> bool:
        """Whether links are meant to be bound to an interface, by the last look."""
        return self._last is not None and (self._last.interface is not None or self._last.why != "")

    @property
    def named(self) -> bool:
        """Whether the configuration names the interface."""
        return self._wanted not in (AUTO, ANY)

    def look(self) -> LinkWay:
        """What links are to be bound to now. Reads a file or two of each interface that hears the same ARP requests."""
        if self._wanted == ANY or (self._wanted == AUTO and self.source is None):
            return LinkWay()
        try:
            network = host_network() if self._network is None else self._network.now()
            way = choose(network, self._listen, self._wanted, arp_ignore, self._neighbours)
        except OSError as error:
            way = LinkWay(None, f"the kernel does not tell the interfaces ({error.strerror})")
        if way.missing and self._wanted == AUTO and self._bound is None and is_bindable(self._listen):
            way = LinkWay()  # of a whole network on lo, or net.ipv4.ip_nonlocal_bind
        if way.interface is not None and self._refused:
            way = LinkWay(None, self._refused)
        self._tell(way)
        return way

    def close(self) -> None:
        """Watch this host's network no more. Idempotent; a look reads it anew from then on."""
        if self._network is not None:
            self._network.close()
            self._network = None

    def _neighbours(self, network: HostNetwork, interface: HostInterface) -> Iterable[str]:
        """`others_on_segment`, looked for once in each network."""
        if self._near is None or self._near[0] is not network or self._near[1] != interface:
            self._near = (network, interface, list(others_on_segment(network, interface)))
        return self._near[2]

    def way(self) -> LinkWay:
        """What a dial is to be bound to. Raises HandshakeError, which names interface and address, while they do not
        exist.
        """
        way = self.look()
        if way.missing:
            gone = f" ({self._bound.name} had it)" if self._bound and self._wanted == AUTO else ""
            text = f"links leave from {self._listen}, and {way.why}{gone}"
            raise HandshakeError(text, CloseReason.PEER_UNREACHABLE)
        return way

    def bind(self, sock: socket.socket | trio.socket.SocketType, way: LinkWay) -> bool:
        """Bind a socket that is not bound to an interface yet. Returns whether it is now: some kernels refuse.

        Raises HandshakeError if the interface is not there any more.
        """
        if way.interface is None:
            return False
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.device.encode() + b"\0")
        except OSError as error:
            if error.errno == errno.ENODEV:
                text = f"links leave from {self._listen}, and {way.device}, which had it, is gone"
                raise HandshakeError(text, CloseReason.PEER_UNREACHABLE) from None
            self._refused = (
                f"the kernel refuses SO_BINDTODEVICE ({error.strerror}; it takes Linux 5.7, or CAP_NET_RAW): "
                "the routes and rules of this host decide"
            )
            self._tell(LinkWay(None, self._refused))
            return False
        self.bound(way)
        return True

    def bound(self, way: LinkWay) -> None:
        """A socket is bound so. Says it, if that is news."""
        if way.interface is not None and way.interface != self._bound:
            self._bound = way.interface
            self._say(log.info, "links go through their interface", interface=way.device)

    def _tell(self, way: LinkWay) -> None:
        last, self._last = self._last, way
        if last == way or way.interface is not None:
            return
        if way.missing and self._bound is not None:
            self._say(log.warning, "the links' interface is gone", interface=self._bound.name)
        elif way.why and not way.missing:
            reason = f"{way.why}: {way.mend}" if way.mend else way.why
            self._say(log.warning, "links are not bound to their interface", reason=reason)

    def _say(self, level: Callable[..., object], event: str, **fields: str) -> None:
        self._news = partial(level, event, address=self._listen, **fields)
        if self._is_ready:
            self._news()
