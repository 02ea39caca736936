"""This namespace's interfaces and addresses, asked of the kernel in two messages (rtnetlink(7)).

A proxy without `interfaces` does not load pyroute2, which takes a quarter of a second and 9 MB (proxy/netdev/observe
has all that it can tell). The kernel answers while it is asked, 40 µs for each interface: on a host of containers with
a thousand of them that is too long for an event loop to do at each dial, so `NetworkView` asks only when there is news.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Container, Iterator
from typing import NamedTuple

__all__ = [
    "HostInterface",
    "HostNetwork",
    "InterfaceAddress",
    "NetworkView",
    "dump",
    "has_route",
    "host_network",
    "is_local",
]

LOOPBACK, NO_ARP, UP = 0x8, 0x80, 0x1
"""IFF_LOOPBACK, IFF_NOARP and IFF_UP of <linux/if.h>."""

_HEADER, _LINK, _ADDRESS, _ATTRIBUTE = (struct.Struct(f"={form}") for form in ("IHHII", "BxHiII", "BBBBI", "HH"))
_GET_LINK, _GET_ADDRESS = 18, 22
_REQUEST, _REQUEST_DUMP = 0x1, 0x301
_ERROR, _DONE = 2, 3
_IFLA_NAME, _IFLA_PARENT, _IFLA_INFO, _IFLA_PARENT_NAMESPACE, _INFO_KIND = 3, 5, 18, 37, 1
_OF_LINK = (_IFLA_NAME, _IFLA_PARENT, _IFLA_INFO, _IFLA_PARENT_NAMESPACE)
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TYPE = 0x3FFF
_ROUTE = struct.Struct("=BBB5xI")
_ROUTE_TYPE, _RTN_LOCAL = 7, 2
_GET_ROUTE, _FIB_MATCH = 26, 0x2000
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_READ = 1 << 17
_NEWS = 0x1 | 0x10 | 0x100
"""Groups of messages about interfaces and addresses of both families (RTMGRP_ in <linux/rtnetlink.h>)."""
_EXT_MASK = _ATTRIBUTE.pack(8, 29) + (1 << 3).to_bytes(4, sys.byteorder)
"""IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: without counters, a quarter of all that is told."""


class HostInterface(NamedTuple):
    """An interface. ``kind``: macvlan, dummy, ...; "" for hardware. ``parent``: the index of the one below, if that is
    in this namespace too; 0: none.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody needs here
    name: str
    kind: str = ""
    flags: int = 0
    parent: int = 0


class InterfaceAddress(NamedTuple):
    """An address of the interface with this index."""

    interface: int
    address: str
    prefix: int

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The subnet that it is in."""
        return ipaddress.ip_network(f"{self.address}/{self.prefix}", strict=False)


class HostNetwork(NamedTuple):
    """The interfaces by index, and all addresses."""

    interfaces: dict[int, HostInterface]
    addresses: tuple[InterfaceAddress, ...]

    def named(self, name: str) -> HostInterface | None:
        """The interface of that name."""
        return next((found for found in self.interfaces.values() if found.name == name), None)

    def bearers(self, address: str) -> list[HostInterface]:
        """The interfaces that have this address; of a link-local one with a scope, that interface."""
        plain, _, scope = address.partition("%")
        having = [self.interfaces[item.interface] for item in self.addresses
                  if item.address == plain and item.interface in self.interfaces]  # fmt: skip
        return [found for found in having if scope in ("", found.name, str(found.index))]


def host_network() -> HostNetwork:
    """Ask. Raises OSError if the kernel does not let this process."""
    question = bytes(_LINK.size) + _EXT_MASK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        interfaces = {found.index: found for found in map(_interface, dump(sock, _GET_LINK, question))}
        addresses = tuple(filter(None, map(_address, dump(sock, _GET_ADDRESS, bytes(_ADDRESS.size)))))
    return HostNetwork(interfaces, addresses)


class NetworkView:
    """The network of this namespace, read again only when the kernel has told of a change. It tells before whoever has
    made the change goes on, so that nothing old is ever seen. `close` closes its socket.
    """

    def __init__(self) -> None:
        self._news: socket.socket | None = None
        self._seen: HostNetwork | None = None

    def now(self) -> HostNetwork:
        """The same object while nothing has changed. Raises OSError as `host_network`."""
        if self._has_changed() or self._seen is None:
            self._seen = None
            self._seen = host_network()  # what changes meanwhile is told again
        return self._seen

    def close(self) -> None:
        """Idempotent."""
        if self._news is not None:
            self._news.close()
            self._news = None

    def _has_changed(self) -> bool:
        if self._news is None:
            try:
                self._news = _subscribed()
            except OSError:  # without a descriptor, say: then each time is the first one
                return True
            return True
        changed = False
        while True:
            try:
                self._news.recv(1)  # of each message one byte, and the kernel drops the rest
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # it has dropped some messages, and says so once
                    raise
            changed = True


def _subscribed() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, _NEWS))
    except BaseException:
        sock.close()
        raise
    return sock


def has_route(address: str, source: str | None, interface: int) -> bool:
    """Whether a route goes through this interface to an address (RTM_F_FIB_MATCH). A socket that is bound to an
    interface needs none with IPv4: the kernel then takes everything for its neighbour there.
    """
    target = ipaddress.ip_address(address)
    bits = target.max_prefixlen
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, bits, bits if source else 0, _FIB_MATCH) + _attribute(_RTA_DST, target.packed)
    if source is not None:
        body += _attribute(_RTA_SRC, ipaddress.ip_address(source).packed)
    body += _attribute(_RTA_OIF, interface.to_bytes(4, sys.byteorder))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body)
        _, answer, _, _, _ = _HEADER.unpack_from(sock.recv(_READ))
    return bool(answer != _ERROR)


def is_local(address: str) -> bool:
    """Whether packets to an address never leave this host. (That a socket can be bound to it says less where
    net.ipv4.ip_nonlocal_bind is set.) Raises OSError if the kernel cannot be asked.
    """
    target = ipaddress.ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, target.max_prefixlen, 0, 0) + _attribute(_RTA_DST, target.packed)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body)
        data = sock.recv(_READ)
    _, answer, _, _, _ = _HEADER.unpack_from(data)
    return bool(answer != _ERROR and data[_HEADER.size + _ROUTE_TYPE] == _RTN_LOCAL)


def _attribute(kind: int, value: bytes) -> bytes:
    """Values here are a multiple of four bytes long, so nothing has to be filled up."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """The answers of a netlink socket to one question, without their headers. Raises OSError."""
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, 1, 0) + body)
    while True:
        data = sock.recv(_READ)
        start = 0
        while start < len(data):
            length, answer, _, _, _ = _HEADER.unpack_from(data, start)
            content = data[start + _HEADER.size : start + length]
            if answer == _DONE:
                return
            if answer == _ERROR:
                code = -int.from_bytes(content[:4], sys.byteorder, signed=True)
                raise OSError(code, "netlink refuses")
            yield content
            start += (length + 3) & ~3


def _attributes(data: bytes, start: int, wanted: Container[int]) -> dict[int, bytes]:
    found = {}
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            break
        if kind & _TYPE in wanted:
            found[kind & _TYPE] = data[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def _interface(content: bytes) -> HostInterface:
    _, _, index, flags, _ = _LINK.unpack_from(content)
    told = _attributes(content, _LINK.size, _OF_LINK)
    kind = _attributes(told.get(_IFLA_INFO, b""), 0, (_INFO_KIND,)).get(_INFO_KIND, b"")
    near = _IFLA_PARENT_NAMESPACE not in told
    parent = int.from_bytes(told.get(_IFLA_PARENT, b""), sys.byteorder) if near else 0
    return HostInterface(index, _text(told.get(_IFLA_NAME, b"")), _text(kind), flags, parent)


def _address(content: bytes) -> InterfaceAddress | None:
    _, prefix, _, _, index = _ADDRESS.unpack_from(content)
    told = _attributes(content, _ADDRESS.size, (_IFA_ADDRESS, _IFA_LOCAL))
    # On a point-to-point interface IFA_ADDRESS is the other end.
    raw = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
    return InterfaceAddress(index, str(ipaddress.ip_address(raw)), prefix) if raw and len(raw) in (4, 16) else None


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
