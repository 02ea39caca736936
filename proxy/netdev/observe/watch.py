"""Noticing that interfaces or addresses of this host change: a netlink socket that trio waits on.

What a message says is not read: messages may be lost (ENOBUFS), come late, or be about other interfaces. Each means
only that it is time to look again, and `look` then reads what there is. It does so without pyroute2: on a host that
starts containers every proxy would load it, for a quarter of a second and 9 MB.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing
from typing import NamedTuple

import trio

from proxy.links.rtnetlink import host_network

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
"""Groups of messages (linux/rtnetlink.h, rtnetlink(7)): interfaces, and addresses of both families."""
NETLINK_ROUTE = 0

PAUSE = 1.0
"""Seconds between two looks, at least, while changes keep coming: a host that starts and stops containers changes its
interfaces all day."""


def open_watch() -> socket.socket:
    """A socket that becomes readable when interfaces or addresses of this network namespace change; the caller closes
    it. It needs no privilege. Raises OSError where there are no netlink sockets (a sandbox).
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    except OSError:
        sock.close()
        raise
    return sock


async def watch(sock: socket.socket, changed: Callable[[], Awaitable[None]]) -> None:
    """Await `changed` whenever something has, at most once in PAUSE; until cancelled. The caller closes the socket."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        _empty(sock)  # before the look: what changes during it makes the socket readable again
        await changed()
        await trio.sleep(PAUSE)


def _empty(sock: socket.socket) -> None:
    """Take all messages off the socket. Of each one byte is received, and the kernel drops the rest."""
    while True:
        try:
            sock.recv(1)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # the kernel has dropped some: that is read once
                raise


class AddressLook(NamedTuple):
    """What a look has found."""

    held: frozenset[str]
    """All IP addresses of this network namespace."""
    missing: frozenset[str]
    """Those that were asked for and that this host does not have any more."""


def look(bound: Collection[str]) -> AddressLook:
    """Read the addresses that there are. Blocks: to be called in a thread.

    Args:
        bound: IP addresses that connections of this host have.

    Raises OSError if the kernel does not answer.
    """
    held = frozenset(item.address for item in host_network().addresses)
    return AddressLook(held, frozenset(address for address in bound if address not in held and not _usable(address)))


def _usable(address: str) -> bool:
    """Whether a socket can have the address though no interface does: any of 127.0.0.0/8, or one by a local route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
        try:
            sock.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
