"""What door and proxy say to each other: JSON, one message in each packet, descriptors with those that say so.

The proxy connects. Both sides begin with `Hello`. The proxy then shows what it has (`Held` …, `Shown`), and the door
says what there is to be (`Sockets` …, `Listener` …, `Offer` …, `Listed`): what it has not named by then the proxy
closes. From then on the door says what changes. The proxy has the listening sockets of its upstreams kept at the door
(`Keep`, `Drop`), as with systemd's store, so that callers wait while there is no proxy; one that starts gets them
(`Fetch`).
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Drop",
    "End",
    "Ended",
    "Fetch",
    "FromDoor",
    "FromProxy",
    "Held",
    "Hello",
    "Keep",
    "Kept",
    "Listed",
    "Listener",
    "NoSockets",
    "Offer",
    "Shown",
    "Sockets",
    "Stock",
    "Want",
    "Withdraw",
]

PROTOCOL = 2
SOCKET = "door.sock"
"""Name of the door's socket in `door.directory`."""
MOST_STOCK = 64
"""Sockets in one `Stock`. The kernel passes at most 253 descriptors at a time (SCM_MAX_FD)."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Whoever gets another number ends the connection."""

    protocol: int = PROTOCOL


class Held(msgspec.Struct, frozen=True, tag="held"):
    """The proxy has this listener; with it. ``namespace``: its SO_NETNS_COOKIE; ``listen``: ``IP:PORT``."""

    namespace: int
    listen: str


class Shown(msgspec.Struct, frozen=True, tag="shown"):
    """The proxy has no more than that."""


class Want(msgspec.Struct, frozen=True, tag="want"):
    """The proxy wants so many sockets of that namespace and family (4 or 6)."""

    namespace: int
    family: int
    count: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The proxy has closed everything of that namespace."""

    namespace: int


class Listener(msgspec.Struct, frozen=True, tag="listener"):
    """Accept there; with the listener, unless the proxy has shown that it has it."""

    namespace: int
    listen: str
    service: str
    caller: str
    container: str


class Offer(msgspec.Struct, frozen=True, tag="offer"):
    """A container offers a service at ``deliver`` (``IP:PORT``)."""

    namespace: int
    service: str
    deliver: str
    container: str


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw"):
    """The container offers it no more; what is open goes on."""

    namespace: int
    service: str


class Stock(msgspec.Struct, frozen=True, tag="stock"):
    """The wanted sockets, or as many as there could be: unconnected, non-blocking."""

    namespace: int
    family: int


class End(msgspec.Struct, frozen=True, tag="end"):
    """The container has ended: close everything of its namespace, and say `Ended`."""

    namespace: int
    container: str


class Sockets(msgspec.Struct, frozen=True, tag="sockets"):
    """A container that exists has a directory of that name mounted: have a socket for each of these services in it."""

    directory: str
    services: list[str]
    caller: str


class NoSockets(msgspec.Struct, frozen=True, tag="no-sockets"):
    """There is no such container any more."""

    directory: str


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """That was everything there is."""


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """The proxy has this listening socket of an upstream, which comes with the message: keep it for the next proxy, in
    the place of one that has the name (`fdstore.name_of`).
    """

    name: str


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Keep it no more."""

    name: str


class Fetch(msgspec.Struct, frozen=True, tag="fetch"):
    """A proxy that starts wants what is kept: `Kept` …, `Listed`, on a connection for nothing else."""


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """A socket that an earlier proxy had kept; with it."""

    name: str


FromDoor = Hello | Listener | Offer | Withdraw | Stock | End | Sockets | NoSockets | Kept | Listed
FromProxy = Hello | Held | Shown | Want | Ended | Keep | Drop | Fetch
