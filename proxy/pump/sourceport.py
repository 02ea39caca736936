"""The near end of a connection to a local service through TCP: its socket, its port, what this host may lack for it.

**Ports.** A connection whose end comes from this side first, as when a caller says goodbye, keeps its port for a minute
(TIME_WAIT), towards that service. With the usual 28,232 ports that is 470 calls a second, for other addresses than the
loopback ones, where Linux uses such ports again by itself (`net.ipv4.tcp_tw_reuse`, ip-sysctl). For a port that is
bound by name it does so everywhere, if both connections have TCP timestamps, which tell late segments of the old one
apart (`tcp_twsk_unique`; RFC 6191). So when the kernel finds no port, some are tried by name. All connections bear
SO_REUSEADDR, without which the kernel would not let them; it also lets a service listen on a port that one of ours has.
Connections that are open at a time need a port each; more of them than there are ports need more addresses to come from
(`services.*.source`), each of which has all ports.

**Oneself.** Who connects to a port of this machine on which nobody listens may be given that very port to connect from:
TCP then connects the socket to itself (a simultaneous open, RFC 9293, section 3.5), and the service cannot have its
port.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress

from control.base.reading.addresses import socket_address
from proxy.pump.options import KeepAlive, LocalSocket, keep_alive, prepare_local

TRIES = 32
"""Ports that are tried by name. Where most are in TIME_WAIT the first one does; each costs some 10 µs."""
IP_BIND_ADDRESS_NO_PORT = 24
"""<linux/in.h>; in Python's socket from 3.12 on. The port is chosen when the destination is known: it must be free
towards that one only."""
_ANY = ""
"""The address that a connection comes from is the kernel's choice."""
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"
_DEFAULT_RANGE = (32768, 60999)
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

LACKS = {
    errno.EMFILE: "this proxy has no descriptor left",
    errno.ENFILE: "this machine has no descriptor left",
    errno.ENOBUFS: "this machine has no memory left for a socket",
    errno.ENOMEM: "this machine has no memory left for a socket",
}
"""What socket(2) and connect(2) say when it is this machine, not the service, that cannot."""


class LocalShortage(OSError):
    """This host has no port, descriptor or memory for a connection. Its text says which; the service may be well."""


def failure(code: int) -> OSError:
    """The exception for an error number: LocalShortage if this machine is to blame."""
    return LocalShortage(code, LACKS[code]) if code in LACKS else OSError(code, os.strerror(code))


def no_thread() -> LocalShortage:
    """For a RuntimeError of `threading`: a limit of processes (RLIMIT_NPROC, a cgroup's pids.max) is reached."""
    return LocalShortage(errno.EAGAIN, "this machine gives this proxy no more threads")


def start(host: str, port: int, settings: KeepAlive | None, sources: Sequence[str] = ()) -> LocalSocket:
    """Begin to connect to an IP address; returns a non-blocking, prepared socket that epoll reports writable when that
    has come to an end. Raises OSError if it has failed already; LocalShortage is one.

    Args:
        sources: addresses of this host to come from: one at random, so that ports are used up evenly, and the others
            where that has no port left. Those of the other family are passed over. None: the kernel's choice.
    """
    fitting = [source for source in sources if (":" in source) == (":" in host)] or [_ANY]
    random.shuffle(fitting)
    usable = []
    for source in fitting:
        try:
            if (sock := _attempt(host, port, settings, source)) is not None:
                return sock
        except _NotBound:
            continue
        usable.append(source)
    if not usable:
        missing = " or ".join(sorted(fitting))
        raise LocalShortage(errno.EADDRNOTAVAIL, f"no interface of this host has {missing}, to connect from")
    return _from_a_port_by_name(host, port, settings, usable)


def met_itself(sock: LocalSocket) -> bool:
    """Whether a connected TCP socket is its own other end. Closing it, with `prepare_local`'s reset, frees its port."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # it has been reset already
        return False


class _NotBound(Exception):
    """No interface has the address to come from, or another socket has its port."""


def _attempt(host: str, port: int, settings: KeepAlive | None, source: str, own: int = 0) -> LocalSocket | None:
    """A socket that connects from that address, if not _ANY, and port (0: whichever is free); None: there is no port
    left. Raises _NotBound, and OSError for what no other port would mend.
    """
    sock = _prepared(host, settings)
    if source != _ANY and not _bound(sock, source, own):
        raise _NotBound
    code = _connect(sock, host, port)
    if code not in (0, errno.EADDRNOTAVAIL):
        raise failure(code)
    return None if code else sock


def _prepared(host: str, settings: KeepAlive | None) -> LocalSocket:
    try:
        sock = LocalSocket(socket.AF_INET6 if ":" in host else socket.AF_INET, _STREAM)
    except OSError as error:
        raise failure(error.errno or 0) from None
    prepare_local(sock)
    keep_alive(sock, settings)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _connect(sock: LocalSocket, host: str, port: int) -> int:
    """0 if it is under way or done, else an error number; the socket is closed then."""
    try:
        code: int = sock.connect_ex(socket_address(host, port))
    except OSError as error:  # the address itself: an interface (%eth0) that does not exist
        code = error.errno or errno.EINVAL
    if code in (0, errno.EINPROGRESS):
        return 0
    sock.close()
    return code


def _bound(sock: LocalSocket, source: str, own: int) -> bool:
    """Whether the socket comes from that address now; it is closed otherwise. ``own``: its port; 0: whichever is free
    when it connects.
    """
    try:
        if not own:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind(socket_address(source, own))
    except OSError:
        sock.close()
        return False
    return True


def _from_a_port_by_name(host: str, port: int, settings: KeepAlive | None, sources: Sequence[str]) -> LocalSocket:
    for chosen in sources:
        source = _source(host, port) if chosen == _ANY else chosen
        if source is None:  # no port would help: such as ::1 where IPv6 is switched off
            raise failure(errno.EADDRNOTAVAIL)
        for own in _ports():
            if own == port:
                continue  # it could meet itself
            with suppress(_NotBound):
                if (sock := _attempt(host, port, settings, source, own)) is not None:
                    return sock
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise LocalShortage(errno.EADDRNOTAVAIL, f"this host has no source port left towards {where}")


def _source(host: str, port: int) -> str | None:
    """The address that a connection would come from; None if there is none. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(socket_address(host, port))
            own, _, *scope = probe.getsockname()
            return f"{own}%{scope[1]}" if scope and scope[1] else str(own)
    except OSError:
        return None


def _ports() -> Iterator[int]:
    """TRIES of the ports that the kernel gives out, at random."""
    low, high = _range()
    reserved = _reserved()
    for _ in range(TRIES):
        port = random.randint(low, high)
        if not any(first <= port <= last for first, last in reserved):
            yield port


def _range() -> tuple[int, int]:
    try:
        with open(_RANGE, encoding="ascii") as file:
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _DEFAULT_RANGE


def _reserved() -> list[tuple[int, int]]:
    """Ports that the kernel keeps for services: ``8080,9148-9150``."""
    try:
        with open(_RESERVED, encoding="ascii") as file:
            spans = [span.split("-") for span in file.read().strip().split(",") if span]
        return [(int(span[0]), int(span[-1])) for span in spans]
    except (OSError, ValueError):
        return []
