"""The near end of a connection to a local service through TCP: its socket, its port, what this host may lack for it.

**Ports.** A connection whose end comes from this side first, as when a caller says goodbye, keeps its port for a minute
(TIME_WAIT), towards that service. With the usual 28,232 ports that is 470 calls a second, for other addresses than the
loopback ones, where Linux uses such ports again by itself (`net.ipv4.tcp_tw_reuse`, ip-sysctl). For a port that is
bound by name it does so everywhere, if both connections have TCP timestamps, which tell late segments of the old one
apart (`tcp_twsk_unique`; RFC 6191). So when the kernel finds no port, some are tried by name. All connections bear
SO_REUSEADDR, without which the kernel would not let them; it also lets a service listen on a port that one of ours has.

**Oneself.** Who connects to a port of this machine on which nobody listens may be given that very port to connect from:
TCP then connects the socket to itself (a simultaneous open, RFC 9293, section 3.5), and the service cannot have its
port.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator

from proxy.pump.options import KeepAlive, LocalSocket, keep_alive, prepare_local

TRIES = 32
"""Ports that are tried by name. Where most are in TIME_WAIT the first one does; each costs some 10 µs."""
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


def start(host: str, port: int, settings: KeepAlive | None) -> LocalSocket:
    """Begin to connect to an IP address; returns a non-blocking, prepared socket that epoll reports writable when that
    has come to an end. Raises OSError if it has failed already; LocalShortage is one.
    """
    sock = _prepared(host, settings)
    code = _connect(sock, host, port)
    if code == errno.EADDRNOTAVAIL:
        return _from_a_port_by_name(host, port, settings)
    if code:
        raise failure(code)
    return sock


def met_itself(sock: LocalSocket) -> bool:
    """Whether a connected TCP socket is its own other end. Closing it, with `prepare_local`'s reset, frees its port."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # it has been reset already
        return False


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
        code: int = sock.connect_ex((host, port))
    except OSError as error:  # the address itself: a scope (%eth0) that does not exist
        code = errno.EINVAL if error.errno is None or error.errno < 0 else error.errno
    if code in (0, errno.EINPROGRESS):
        return 0
    sock.close()
    return code


def _from_a_port_by_name(host: str, port: int, settings: KeepAlive | None) -> LocalSocket:
    source = _source(host, port)
    if source is None:  # no port would help: such as ::1 where IPv6 is switched off
        raise failure(errno.EADDRNOTAVAIL)
    for own in _ports():
        if own == port:
            continue  # it could meet itself
        sock = _prepared(host, settings)
        try:
            sock.bind((source, own))
        except OSError:
            sock.close()
            continue
        code = _connect(sock, host, port)
        if not code:
            return sock
        if code != errno.EADDRNOTAVAIL:
            raise failure(code)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise LocalShortage(errno.EADDRNOTAVAIL, f"this host has no source port left towards {where}")


def _source(host: str, port: int) -> str | None:
    """The address that a connection would come from; None if there is none. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            return str(probe.getsockname()[0])
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
