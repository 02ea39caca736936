"""Telling a call that comes from this proxy itself, and how often it has come round: the calls of a service that is
delivered to an upstream would otherwise go round in circles until nobody has a descriptor left.

A call passes a *hop* when a proxy delivers it to what turns out to be an upstream. Who accepts such a call knows its
own connection again: a TCP caller by its address, which is the near end of one of those in `OwnConnections`, and a Unix
caller by its process (`options.peer_uid`). It counts a hop more, which OPEN takes along to the next host
(`mux.frames.Via`), and beyond MAX_HOPS the call is refused as LOOP. A host that delivers straight to an upstream of
another host is known there by nobody: so OPEN says which address a TCP caller came from, unless that is a loopback one,
and the host whose own address it is counts the hop.
"""

from __future__ import annotations

import os
from itertools import count

from proxy.mux.frames import Via
from proxy.pump.options import LocalSocket

MAX_HOPS = 4
"""Upstreams that a call may pass behind the first one: more than anybody would chain on purpose, and few enough that a
circle costs a dozen descriptors."""
Source = tuple[str, int]
"""IP address and port."""

_NAME = b"\0hostlane-hops-"
_numbers = count()


class OwnConnections:
    """The near ends of this proxy's TCP connections to services. Connections to several services may have one near end:
    the kernel tells them apart by the far one, which the host that accepts a call may see as another (address
    translation). Then the most hops count.
    """

    def __init__(self) -> None:
        # By near end and, as equal ones are several connections, by the identity of what `add` has returned.
        self._hops: dict[Source, dict[int, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._hops.values()))

    def add(self, sock: LocalSocket, hops: int) -> Source:
        """Remember a connection that is under way: it may be accepted before this end knows. `drop` follows, with this
        very object.
        """
        source = plain(sock.getsockname())
        self._hops.setdefault(source, {})[id(source)] = hops
        return source

    def drop(self, source: Source | None) -> None:
        """The connection is about to be closed. Idempotent."""
        if source is not None and (ends := self._hops.get(source)) is not None:
            ends.pop(id(source), None)
            if not ends:
                del self._hops[source]

    def after(self, source: Source | None) -> int:
        """The hops of a call that came from there: 0 if that is no connection of ours."""
        ends = None if source is None else self._hops.get(source)
        return max(ends.values()) + 1 if ends else 0

    def passed(self, via: Via) -> int:
        """The hops of a call that another host has sent here."""
        return max(via.hops, self.after(via.source))


def plain(address: tuple[str, int] | tuple[str, int, int, int]) -> Source:
    """A socket's address in the spelling that both ends have of it: IPv4 also where an IPv6 socket says it, and without
    the interface (``%eth0``), which each machine names in its own way.
    """
    host = address[0].partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host, address[1]


def caller_of(sock: LocalSocket) -> Source | None:
    """The address of a TCP caller; None if it is gone."""
    try:
        return plain(sock.getpeername())
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Whether an address of a caller means this machine."""
    return host.startswith("127.") or host == "::1"


def name_for(hops: int) -> bytes:
    """What the near end of a Unix connection is bound to, so that the far end can read how many hops its call has
    passed: an abstract name (unix(7)). Only calls that have passed some are given one.
    """
    return _NAME + b"%d-%d-%d" % (os.getpid(), next(_numbers), hops)


def via_unix(sock: LocalSocket) -> Via:
    """How a Unix call came here that is known to be from this process."""
    name = sock.getpeername()
    passed = int(name.rpartition(b"-")[2]) if isinstance(name, bytes) and name.startswith(_NAME) else 0
    return Via(passed + 1, None)


def said(hops: int) -> str:
    """The detail for the log."""
    return f"it has come through {hops} upstreams: a service is delivered to an upstream, and so round in a circle"
