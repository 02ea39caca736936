"""What a person writes about network interfaces, turned into values: names, MACs, addresses, networks, rates.

Readers as those of :mod:`control.base.reading.units`: they raise ``ValueError`` and nothing else, worded "what was
found; what is allowed". Addresses come out in one spelling, so that equal ones compare equal.
"""

from __future__ import annotations

import ipaddress
import re

from control.base.reading import units
from control.base.reading.addresses import TcpAddress
from control.base.reading.shape import NULL, shape_of, takes, text
from control.base.reading.units import is_mac, matching, wrong

STABLE = "stable"
"""Instead of a MAC: derived from the names of host and interface."""

AUTO, ANY = "auto", "any"
"""Auto: instead of an address, one that the control plane leases; instead of an interface, whichever has the address.
Any: whichever interface the routes say."""

LINKS_PORT = 7600
"""Where links arrive at a leased address, unless told otherwise; the port of all examples."""

DEFAULT = "default"
"""Instead of a network: everything, of the IP version of ``via``."""

_INTERFACE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,14})", re.ASCII)
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}", re.ASCII)
_AUTO_PORT = re.compile(r"auto(?::([1-9][0-9]{0,4}))?", re.ASCII)
_RATE = re.compile(r"([0-9]{1,7})(Mbit|Gbit)", re.ASCII)

_IP_CHARACTERS = "[0-9A-Fa-f.:]+"
_WITH_LENGTH = f"{_IP_CHARACTERS}/[0-9]{{1,3}}"

INTERFACE_NAME = "1 to 15 of A-Z a-z 0-9 _ . -, with a letter, digit or _ first"
LINKS_INTERFACE = f"auto, any, or the name of an interface: {INTERFACE_NAME}"
CONTAINER_NAME = "the name of a container: 2 to 128 of A-Z a-z 0-9 _ . -, with a letter or digit first"
MAC = 'stable, or the MAC of one machine in quotes, such as "02:00:5e:10:00:01"'
ADDRESS = "an IP address with its prefix length, such as 10.77.0.1/24 or fd00::1/64"
ADDRESS_OR_AUTO = f"{ADDRESS}, or auto"
LINKS_ADDRESS = 'auto (port 7600), "auto:PORT" with port 1 to 65535, or null'
NETWORK = "default, or a network such as 10.80.0.0/16 or fd00:80::/32"
OWN_IP = "an IP address of this host, such as 10.77.0.1 or fd00::1"
IP = "an IP address such as 10.77.0.254 or fd00::fe"
ROUTING_TABLE = "the number of a routing table, 1 to 252 or 256 to 4294967295"
RATE = "a rate with its unit, such as 500Mbit or 10Gbit"
WHOLE_SECONDS = "1s to 1h, in whole seconds"


@takes(text(_INTERFACE.pattern))
def interface_name(raw: object) -> str:
    """The name of a network interface, unchanged; at most 15 bytes, as the kernel's IFNAMSIZ has it."""
    return matching(_INTERFACE, raw, INTERFACE_NAME)


@takes(text(_INTERFACE.pattern))
def links_interface(raw: object) -> str:
    """What links go through (`LinksConfig.interface`), unchanged."""
    return matching(_INTERFACE, raw, LINKS_INTERFACE)


@takes(text(_CONTAINER.pattern))
def container_name(raw: object) -> str:
    """The name of a container as Docker allows it, unchanged."""
    return matching(_CONTAINER, raw, CONTAINER_NAME)


@takes(text("[Ss][Tt][Aa][Bb][Ll][Ee]|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"))
def mac(raw: object) -> str:
    """A MAC in lower case, or ``stable``."""
    found = raw.lower() if isinstance(raw, str) else ""
    if found == STABLE:
        return found
    if not is_mac(found):
        raise wrong(raw, MAC)
    if int(found[:2], 16) & 1:
        raise wrong(raw, MAC, "which is the address of a group")
    if set(found) <= {"0", ":"}:
        raise wrong(raw, MAC, "which is no machine's")
    return found


def address(raw: object) -> str:
    """``10.77.0.1/24``."""
    try:
        if not isinstance(raw, str) or "/" not in raw or "%" in raw:
            raise ValueError
        found = ipaddress.ip_interface(raw)
    except ValueError:
        raise wrong(raw, ADDRESS) from None
    if found.is_unspecified or found.is_multicast or found.is_loopback:
        raise wrong(raw, ADDRESS, "which no network interface of a host can have")
    edges = {found.network.network_address, found.network.broadcast_address} if found.version == 4 else set()
    if found.ip in edges and found.network.num_addresses > 2:
        raise wrong(raw, ADDRESS, "which stands for a whole network")
    return found.with_prefixlen


@takes(text(f"auto|{_WITH_LENGTH}"))
def address_or_auto(raw: object) -> str:
    """``10.77.0.1/24``, or ``auto``."""
    if isinstance(raw, str) and (raw == AUTO or "/" in raw):
        return raw if raw == AUTO else address(raw)
    raise wrong(raw, ADDRESS_OR_AUTO)


@takes({"anyOf": [text(_AUTO_PORT.pattern), NULL]})
def links_address(raw: object) -> TcpAddress | None:
    """``auto`` or ``auto:7600``: the port at an address that is not known yet; None for null."""
    if raw is None:
        return None
    match = _AUTO_PORT.fullmatch(raw) if isinstance(raw, str) else None
    port = int(match[1] or LINKS_PORT) if match else 0
    if not 1 <= port <= 65535:
        raise wrong(raw, LINKS_ADDRESS)
    return TcpAddress(AUTO, port)


@takes(text(f"default|{_WITH_LENGTH}"))
def network(raw: object) -> str:
    """``10.80.0.0/16``, or ``default``."""
    if raw == DEFAULT:
        return DEFAULT
    try:
        if not isinstance(raw, str) or "/" not in raw:
            raise ValueError
        found = ipaddress.ip_interface(raw)
    except ValueError:
        raise wrong(raw, NETWORK) from None
    if found.ip != found.network.network_address:
        raise wrong(raw, NETWORK, f"which is inside of {found.network}")
    return str(found.network)


@takes(text(_IP_CHARACTERS))
def ip(raw: object) -> str:
    """``10.77.0.254``."""
    try:
        if not isinstance(raw, str) or "%" in raw:
            raise ValueError
        return str(ipaddress.ip_address(raw))
    except ValueError:
        raise wrong(raw, IP) from None


@takes({"type": "integer", "minimum": 1, "maximum": 2**32 - 1})
def routing_table(raw: object) -> int:
    """The number of a table that is not one of the kernel's own (253 default, 254 main, 255 local)."""
    if not isinstance(raw, int) or isinstance(raw, bool) or not 1 <= raw <= 2**32 - 1 or 253 <= raw <= 255:
        raise wrong(raw, ROUTING_TABLE)
    return raw


@takes(text(f"{_IP_CHARACTERS}(?:%[A-Za-z0-9_.-]{{1,15}})?"))
def own_ip(raw: object) -> str:
    """``10.77.0.1``: one that a connection can come from."""
    try:
        if not isinstance(raw, str):
            raise ValueError
        found = ipaddress.ip_address(raw)
    except ValueError:
        raise wrong(raw, OWN_IP) from None
    if found.is_unspecified or found.is_multicast:
        raise wrong(raw, OWN_IP, "which no network interface of a host can have")
    scope = found.scope_id if isinstance(found, ipaddress.IPv6Address) else None
    if found.version == 6 and found.is_link_local and not scope:
        raise wrong(raw, f"{found}%INTERFACE", "which each interface has on its own")
    if scope and not found.is_link_local:
        raise wrong(raw, OWN_IP, "an interface (%) behind an address that is not link-local (fe80::/10)")
    return str(found)


@takes(shape_of(units.seconds))
def whole_seconds(raw: object) -> int:
    """``"60s"`` to 60: the kernel counts keepalive in seconds (tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL)."""
    found = units.seconds(raw)
    if not 1 <= found <= 3600 or found != int(found):
        raise wrong(raw, WHOLE_SECONDS)
    return int(found)


@takes(text(_RATE.pattern))
def rate(raw: object) -> int:
    """``"1Gbit"`` to 1000 (Mbit/s), as the kernel counts a virtual function's rate."""
    match = _RATE.fullmatch(raw) if isinstance(raw, str) else None
    found = int(match[1]) * {"Mbit": 1, "Gbit": 1000}[match[2]] if match else 0
    if not 1 <= found <= 1_000_000:
        raise wrong(raw, f"{RATE}; 1Mbit to 1000Gbit")
    return found
