"""Where a socket is: ``unix:/path`` or ``tcp:host:port``.

Readers raise ``ValueError`` and nothing else, worded as those of :mod:`control.base.reading.units`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket

from msgspec import Struct

from control.base.reading.shape import takes, text
from control.base.reading.units import absolute_path, quote, wrong

UNIX_PATH_BYTES = 107
"""Longest path of a Unix socket: sun_path holds 108 bytes and the kernel wants room for the final zero."""

DEFAULT_RUN_DIR, DEFAULT_CONTROL_RUN_DIR = "/run/hostlane", "/run/hostlane-control"
"""Where a proxy, and a control server, has the sockets that command it, unless its configuration names another
directory (run_dir)."""

DEFAULT_CONFIG, DEFAULT_CONTROL_CONFIG = "/etc/hostlane/hostlane.yaml", "/etc/hostlane/control.yaml"
"""The configuration of a host that units and image use, and that of a control server."""

DEFAULT_SOCKET_DIR = "/run/hostlane-services"
"""Where a proxy has the sockets that serve, unless its configuration names another directory (socket_dir)."""

ADMIN_SOCKET = "admin.sock"
"""Name of the admin socket in run_dir."""

CONTROL_SOCKET = "control.sock"
"""Name, in its run_dir, of the socket where a control server takes its administrator's requests."""

HANDOVER_SOCKET = "next.sock"
"""Name of the socket in run_dir at which the next process takes this one's place (proxy/agent/handover/)."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}", re.ASCII)
_HOSTNAME_CHARACTERS = 253
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)

_PORT_AT_END = r".+:[1-9][0-9]{0,4}"

IP_PORT = "IP:PORT or [IPv6]:PORT, port 1 to 65535"
HOST_PORT = "IP:PORT, [IPv6]:PORT or HOSTNAME:PORT, port 1 to 65535"
DNS_NAME = "a host name, without a port"
SOCKET_PATH = "the absolute path of a Unix socket"
LISTEN = "unix:/absolute/path or tcp:IP:PORT"
DELIVER = "unix:/absolute/path or tcp:HOST:PORT"


class UnixAddress(Struct, frozen=True, tag="unix"):
    """A Unix stream socket; ``path`` is absolute and at most `UNIX_PATH_BYTES` long."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(Struct, frozen=True, tag="tcp"):
    """A TCP socket; ``host`` is an IPv4 or IPv6 address without brackets or, where a name may stand, a host name."""

    host: str
    port: int

    @property
    def hostport(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"tcp:{self.hostport}"


Address = UnixAddress | TcpAddress


def scope_of(host: str) -> str:
    """The interface, by name or number, that stands behind the ``%`` of a link-local IPv6 address; empty: there is
    none. Each machine names it in its own way.
    """
    return host.partition("%")[2]


def without_scope(host: str) -> str:
    """The address as the kernel lists it, beside its interface."""
    return host.partition("%")[0]


def is_link_local(host: str) -> bool:
    """Whether this is an IPv6 address that each interface has on its own (fe80::/10): which one is meant its scope
    says, or the interface that a socket is bound to.
    """
    return _is_ipv6(host) and ipaddress.IPv6Address(host).is_link_local


def socket_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """An IP address as bind(2) and connect(2) take it. The socket module itself makes nothing of a scope, and the
    kernel then refuses the address (EINVAL). Raises OSError (ENODEV) if this machine has no such interface.
    """
    scope = scope_of(host)
    if not scope:
        return host, port
    try:
        index = socket.if_nametoindex(scope)
    except OSError:
        if not scope.isdecimal():
            raise OSError(errno.ENODEV, f"this machine has no interface {scope}") from None
        index = int(scope)
    return without_scope(host), port, 0, index


def unscoped(raw: object, address: TcpAddress) -> TcpAddress:
    """The address, if other machines can make something of it. Raises ValueError."""
    if scope_of(address.host):
        raise wrong(raw, "an address that others can reach", "whose interface means nothing on other machines")
    return address


@takes(text(_PORT_AT_END))
def ip_port(raw: object) -> TcpAddress:
    """``10.77.0.1:7600``: an address of this machine to listen on, never a name (a name may resolve to several)."""
    return _host_port(raw, raw, IP_PORT, names=False)


@takes(text(_HOSTNAME.pattern))
def dns_name(raw: object) -> str:
    """A name as DNS has it, in small letters."""
    if not isinstance(raw, str) or len(raw) > _HOSTNAME_CHARACTERS or not _HOSTNAME.fullmatch(raw):
        raise wrong(raw, DNS_NAME)
    return raw.lower()


@takes(text(_PORT_AT_END))
def host_port(raw: object) -> TcpAddress:
    """``host-b.example:7600`` or ``10.77.0.2:7600``: an address to connect to."""
    found = _host_port(raw, raw, HOST_PORT, names=True)
    _refuse_wildcard(raw, found)
    return found


@takes(text(f"unix:/.+|tcp:{_PORT_AT_END}"))
def listen_address(raw: object) -> Address:
    """``unix:/path`` or ``tcp:IP:PORT``."""
    return _address(raw, LISTEN, names=False)


@takes(text(f"unix:/.+|tcp:{_PORT_AT_END}"))
def deliver_address(raw: object) -> Address:
    """``unix:/path`` or ``tcp:HOST:PORT``."""
    found = _address(raw, DELIVER, names=True)
    if isinstance(found, TcpAddress):
        _refuse_wildcard(raw, found)
    return found


@takes(text("/.*"))
def run_dir(raw: object) -> str:
    """The absolute path of a directory whose sockets have paths that are short enough."""
    path = absolute_path(raw)
    longest = UNIX_PATH_BYTES - len("/" + ADMIN_SOCKET)
    if len(os.fsencode(path)) > longest:
        raise wrong(raw, f"at most {longest} bytes, because the admin socket's path may have {UNIX_PATH_BYTES}")
    return path


def unix_path(raw: object, found: object) -> str:
    """Check ``found`` as the path of a Unix socket; errors show ``raw``, the value that it came from."""
    path = absolute_path(found)
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES:
        raise wrong(raw, f"a path of at most {UNIX_PATH_BYTES} bytes", f"a path of {length} bytes")
    if path == "/" or str(found).endswith("/"):
        raise wrong(raw, "the path of a socket, not of a directory")
    return path


@takes(text("/.*[^/]"))
def socket_path(raw: object) -> str:
    """The path of a Unix socket, by itself."""
    return unix_path(raw, raw)


def is_inside(path: str, directory: str) -> bool:
    """Whether a file or directory is, or would be, somewhere below a directory, or that one itself; symbolic links
    count as where they lead, as far as they exist.
    """
    place, above = os.path.realpath(path), os.path.realpath(directory)
    return place == above or place.startswith(above.rstrip("/") + "/")


def is_wildcard(host: str) -> bool:
    """Whether ``host`` stands for every address of a machine (0.0.0.0, ::)."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def same_place(address: Address) -> Address:
    """The address in a spelling that all of the same place have on this machine: of the path of a Unix socket, its
    directory without symbolic links, as far as it exists; of a host name, lower case; of an interface's number (%2),
    its name, if it exists.
    """
    if isinstance(address, TcpAddress):
        if ":" in address.host:  # which has one spelling otherwise: eth0 and Eth0 behind its % are two interfaces
            plain, _, scope = address.host.partition("%")
            return TcpAddress(f"{plain}%{_interface(int(scope))}", address.port) if scope.isdecimal() else address
        return TcpAddress(address.host.lower(), address.port)
    directory, name = os.path.split(address.path)
    return UnixAddress(os.path.join(os.path.realpath(directory), name))


def overlap(one: Address, other: Address) -> bool:
    """Whether two listeners, one on each address (as `same_place` spells it), would be in each other's way."""
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    return one.port == other.port and (one.host == other.host or is_wildcard(one.host) or is_wildcard(other.host))


def reaches(one: Address, listener: Address, *, dual: bool) -> bool:
    """Whether who connects to `one` on this machine surely comes out at `listener`, both as `same_place` spells them.

    Args:
        dual: whether a listener on ``::`` takes IPv4 too.
    """
    if isinstance(one, UnixAddress) or isinstance(listener, UnixAddress):
        return one == listener
    if one.port != listener.port:
        return False
    if one.host == "localhost" or one.host.endswith(".localhost"):  # RFC 6761, section 6.3
        return listener.host in ("127.0.0.1", "::1") or is_wildcard(listener.host)  # not 127.0.0.2
    same_family = (":" in one.host) == (":" in listener.host)
    takes_in = is_wildcard(listener.host) and (same_family or (dual and ":" in listener.host))
    return one.host == listener.host or (takes_in and (is_loopback(one.host) or is_own(one.host)))


def is_own(host: str) -> bool:
    """Whether an IP address is one of this machine's: the kernel then connects from it to itself. Nothing is sent."""
    if not is_ip(host):
        return False
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(place := socket_address(host, 9))
            return bool(probe.getsockname()[0] == place[0])
    except OSError:  # no way there, so it is another machine's
        return False


def is_bindable(host: str) -> bool:
    """Whether a socket of this machine can have the IP address: an interface has it, or the kernel lends it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(socket_address(host, 0))
    except (OSError, ValueError):
        return False
    return True


def is_ip(host: str) -> bool:
    """Whether this is an IP address and no name."""
    return _is_ipv4(host) or _is_ipv6(host)


def _address(raw: object, allowed: str, *, names: bool) -> Address:
    scheme, _, rest = raw.partition(":") if isinstance(raw, str) else ("", "", "")
    if scheme == "unix":
        return UnixAddress(unix_path(raw, rest))
    if scheme == "tcp":
        return _host_port(raw, rest, allowed, names=names)
    if isinstance(raw, str) and os.path.isabs(raw):
        raise wrong(raw, allowed, f"did you mean {quote('unix:' + raw[:40])}?")
    raise wrong(raw, allowed, _unquoted(raw))


def _host_port(raw: object, written: object, allowed: str, *, names: bool) -> TcpAddress:
    if not isinstance(written, str):
        raise wrong(raw, allowed, _unquoted(raw))
    host, colon, port = written.rpartition(":")
    if not colon or _is_ipv6(written):
        raise wrong(raw, allowed, "an IPv6 address needs brackets" if _is_ipv6(written) else "no port")
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise wrong(raw, allowed, "a bad port")
    return TcpAddress(_host(raw, host, allowed, names=names), int(port))


def _unquoted(raw: object) -> str:
    return "which [ ] make without quotes" if isinstance(raw, list) else ""


def _host(raw: object, host: str, allowed: str, *, names: bool) -> str:
    if host.startswith("[") and host.endswith("]"):
        if not _is_ipv6(host[1:-1]):
            raise wrong(raw, allowed, "a bad IPv6 address")
        # One spelling, so that equal addresses compare equal. ::ffff:10.0.0.1 is how 10.0.0.1 looks to IPv6 sockets;
        # one for IPv6 alone cannot listen there.
        address = ipaddress.IPv6Address(host[1:-1])
        if address.scope_id and not address.is_link_local:
            raise wrong(raw, allowed, "an interface (%) behind an address that is not link-local (fe80::/10)")
        return str(address.ipv4_mapped or address)
    if _is_ipv6(host):
        raise wrong(raw, allowed, "an IPv6 address needs brackets")
    if _is_ipv4(host) or (names and len(host) <= _HOSTNAME_CHARACTERS and _HOSTNAME.fullmatch(host)):
        return host
    raise wrong(raw, allowed, "a bad host name or address" if names else "a bad IP address")


def _refuse_wildcard(raw: object, address: TcpAddress) -> None:
    if is_wildcard(address.host):
        raise wrong(raw, "the address of one machine", "which stands for every address of this machine")


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return str(index)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    """Whether this is an IPv6 address; a scope (``fe80::1%eth0``) is one that ends in a plain interface name."""
    address, percent, scope = host.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", scope) is not None
