"""Whether a service's address leads to one of this proxy's own sockets, however it is spelt.

A file shows it where spelling is all: symbolic links, bind mounts, addresses of this machine, names in /etc/hosts.
Names that only DNS knows are looked up by ``hostlane validate`` (`addresses_of`), not at every start and reload, which
would wait for DNS. What is not found here is found when a call comes round (`proxy.pump.ourselves`).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from time import monotonic

from control.base.reading.addresses import Address, TcpAddress, UnixAddress, is_ip, reaches, same_place
from control.base.reading.yamlmap import Path

HOSTS = "/etc/hosts"
LINKS = ("links", "listen")


class Places:
    """This proxy's own sockets, to be found by address."""

    def __init__(self, places: Iterable[tuple[Path, Address]]) -> None:
        # Only what has the same port or file name can meet; a host may have thousands of upstreams.
        self._near: dict[str | int, list[tuple[Path, Address]]] = {}
        for path, address in places:
            place = exact(address)
            self._near.setdefault(_neighbourhood(place), []).append((path, place))

    def reached_by(self, address: Address) -> Path | None:
        """The key of the socket that this address surely leads to; None: of none."""
        for way in ways(address):
            for path, place in self._near.get(_neighbourhood(way), []):
                # Links are listened for on IPv6 alone where the address is ::, upstreams' callers on both.
                if reaches(way, place, dual=path != LINKS):
                    return path
        return None


def _neighbourhood(place: Address) -> str | int:
    return place.port if isinstance(place, TcpAddress) else os.path.basename(place.path)


def exact(address: Address) -> Address:
    """As `same_place`; the directory of a Unix socket, if it exists, by its number: it may be mounted at two paths."""
    place = same_place(address)
    if isinstance(place, TcpAddress):
        return place
    directory, name = os.path.split(place.path)
    try:
        found = os.stat(directory)
    except OSError:
        return place
    return UnixAddress(f"/{found.st_dev}:{found.st_ino}/{name}")


def ways(address: Address) -> Iterator[Address]:
    """What this address stands for on this machine: where its symbolic link leads, what /etc/hosts has for its name."""
    yield exact(address)
    if isinstance(address, UnixAddress):
        if os.path.islink(address.path):
            yield exact(UnixAddress(os.path.realpath(address.path)))
    elif not is_ip(address.host):
        for host in hosts_file(address.host):
            yield exact(TcpAddress(host, address.port))


def hosts_file(name: str) -> list[str]:
    """The addresses of a name in /etc/hosts (hosts(5))."""
    try:
        with open(HOSTS, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return []
    wanted = name.lower().rstrip(".")
    found = [line[0] for line in lines if wanted in [word.lower() for word in line[1:]] and is_ip(line[0])]
    return [_plain(host) for host in found]


def addresses_of(names: Iterable[str], seconds: float) -> dict[str, list[str]]:
    """The addresses of names, as the C library finds them, within so many seconds in all; none for the others."""
    found: dict[str, list[str]] = {}

    def ask(name: str) -> None:
        try:
            answer = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found[name] = list(dict.fromkeys(_plain(str(sockaddr[0])) for *_rest, sockaddr in answer))

    # Daemons, because getaddrinfo cannot be given up: the command ends without them.
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in dict.fromkeys(names)]
    for thread in threads:
        thread.start()
    end = monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - monotonic()))
    return dict(found)


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:") if "." in host else host
