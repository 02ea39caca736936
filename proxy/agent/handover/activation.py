"""Listening sockets that systemd has for this process (sd_listen_fds(3)): from before it starts until after it ends.

Those of a socket unit are matched by their addresses; their files, owners and modes are the unit's, and are never
changed or removed here. Those that an earlier process had systemd store (`fdstore`) are known by their names, and are
this proxy's in every respect. One whose file has gone meanwhile, or leads elsewhere, is of no use, and not taken.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping

from control.base.reading.addresses import Address, TcpAddress, UnixAddress, listen_address, same_place
from control.base.reading.units import quote
from control.base.system.socketpath import published
from control.base.system.unixsock import reclaim_unix
from proxy.agent.handover.fdstore import StoredName, digest, read_name
from proxy.agent.handover.inheritance import LINKS, UPSTREAM, InheritedListeners
from proxy.config.schema import Config
from proxy.errors import ConfigError
from proxy.outbound.sockets import UNKNOWN, InheritableListener, prepare_passed

FIRST = 3
"""Number of the first descriptor; the others follow it."""
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
MOST = 65536


class PassedSockets:
    """The sockets that systemd passed to this process. Owns them until `close`: what a start uses are duplicates, so
    that one which is tried again finds them again. Removes the variables from the environment: processes that this one
    starts must not see them.

    Attributes:
        stored: after `inherit`, the names of those that systemd has in its store, whatever became of them.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        found = {name: environment.pop(name, "") for name in VARIABLES}
        self._count = found["LISTEN_FDS"] if found["LISTEN_PID"] == str(os.getpid()) else "0"
        self._names = found["LISTEN_FDNAMES"].split(":")
        self._held: set[int] = set()
        self.stored: set[str] = set()

    def inherit(self, config: Config, into: InheritedListeners) -> None:
        """Put them `into` the inherited ones, matched by address with upstreams and links.listen.

        Raises ConfigError with a line for each socket that matches nothing; then all of them are closed, here too.
        """
        count, names = self._count, self._names
        if not count.isascii() or not count.isdecimal() or int(count) > MOST:
            raise ConfigError([f"environment: LISTEN_FDS: found {quote(count[:60])}; allowed: a number up to {MOST}"])
        wanted = _wanted(config)
        problems: list[str] = []
        for number in range(int(count)):
            descriptor, name = FIRST + number, names[number] if number < len(names) else ""
            label = f"descriptor {descriptor}" + (f" ({name})" if name else "")
            if (problem := self._take(descriptor, name, config, wanted, into)) is not None:
                problems.append(f"environment: LISTEN_FDS: {label}: {problem}")
        if problems:
            into.close()
            self.close()
            raise ConfigError(problems)

    def adopt(self, config: Config, kept: Iterable[tuple[str, socket.socket]], into: InheritedListeners) -> None:
        """Put sockets of another store than systemd's, with their names there, `into` the inherited ones; they are
        this method's from now on.
        """
        wanted = _wanted(config)
        for name, sock in kept:
            if (known := read_name(name)) is None:
                sock.close()
            else:
                self.stored.add(name)
                _take_stored(sock, known, wanted, into)

    def close(self) -> None:
        """Close them: a start has its own by now, or there is none any more. Idempotent."""
        self._count = "0"
        while self._held:
            os.close(self._held.pop())

    def _take(
        self, descriptor: int, name: str, config: Config, wanted: Mapping[str, str], into: InheritedListeners
    ) -> str | None:
        """Put a duplicate of one socket `into` the inherited ones; if it matches nothing, return why."""
        try:
            passed = socket.socket(fileno=descriptor)
        except OSError:
            return (
                "found no socket; allowed: listening sockets of upstreams, and those of connect.listen and links.listen"
            )
        self._held.add(passed.detach())
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=os.dup(descriptor))
        if (known := read_name(name)) is None:
            return _match(sock, config, wanted, into)
        self.stored.add(name)
        _take_stored(sock, known, wanted, into)
        return None


def _wanted(config: Config) -> dict[str, str]:
    """What the configuration writes for each address, as the kernel has it, that it listens on for callers."""
    listen = [upstream.listen for upstream in config.upstreams.values()]
    if config.connect is not None:
        listen.append(config.connect.listen)
    return {str(_plain(address)): str(address) for address in listen}


def _take_stored(sock: socket.socket, known: StoredName, wanted: Mapping[str, str], into: InheritedListeners) -> None:
    """Put one that an earlier process has stored `into` the inherited ones, wanted or not: the map may still bring its
    upstream. One of no use is closed.
    """
    found = _address(sock)
    if isinstance(found, UnixAddress):
        found = UnixAddress(published(found.path))
    # As the configuration writes it, if it does; the names of long files can be known from there alone.
    text = next((each for each in wanted.values() if digest(each) == known.place), str(found))
    address = None if isinstance(found, str) or digest(text) != known.place else listen_address(text)
    lock = None
    if isinstance(address, UnixAddress) and known.birth is not None:
        lock = reclaim_unix(address.path, known.birth)
    if address is None or (lock is None) != isinstance(address, TcpAddress):
        sock.close()
        return
    prepare_passed(sock)
    into.put(UPSTREAM, text, InheritableListener(sock, lock, known.birth, UNKNOWN))


def _match(sock: socket.socket, config: Config, wanted: Mapping[str, str], into: InheritedListeners) -> str | None:
    """Put one socket `into` the inherited ones; if it matches nothing, close it and return why."""
    address = _address(sock)
    if isinstance(address, str):
        sock.close()
        return f"found {address}; allowed: listening stream sockets"
    if str(address) in wanted:
        prepare_passed(sock)
        into.put(UPSTREAM, wanted[str(address)], InheritableListener(sock, kept=True))
    elif address == _plain(config.links.listen):
        into.put(LINKS, config.links.listen.hostport, InheritableListener(sock))
    else:
        sock.close()
        return f"found {address}; allowed: what an upstream listens on, connect.listen or links.listen"
    return None


def _address(sock: socket.socket) -> Address | str:
    """The address that the socket listens on; for any other socket, words for what it is."""
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a socket that does not listen for connections"
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return UnixAddress(name) if isinstance(name, str) and name else "a Unix socket without a path"
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        scope = f"%{name[3]}" if len(name) == 4 and name[3] else ""
        return _plain(TcpAddress(f"{name[0]}{scope}", name[1]))
    return "a socket of another family"


def _plain(address: Address) -> Address:
    """The address as the kernel writes it, so that two addresses can be compared."""
    if isinstance(address, UnixAddress):
        return address
    host = ipaddress.ip_address(address.host)
    # As configurations are read: an IPv4 address is one, also where an IPv6 socket listens on it.
    plain = str((isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped) or host)
    return same_place(TcpAddress(plain, address.port))
