"""The header of the PROXY protocol, version 2, that tells a service who calls (sans-IO).

Source: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2. docs/callers.md says what
Hostlane puts into it, with byte examples.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

from proxy.mux.frames import UNKNOWN_UID, Open

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_PROXY = 0x21
"""Version 2, command PROXY: the connection is relayed (LOCAL would make the receiver ignore the rest)."""
TCP4, TCP6 = 0x11, 0x21
"""Address families. The one for Unix sockets is never used: HAProxy 2.6 rejects a header with it as broken."""
AUTHORITY = 0x02
CALLING_HOST, CALLING_SERVICE, CALLING_UID = 0xE0, 0xE1, 0xE2
"""Types of our own, in the range that the protocol leaves to applications (0xE0 to 0xEF)."""
MAX_HEADER = 16 + 36 + 3 * (3 + 255) + (3 + 4)
"""Bytes of the longest header."""

_FIXED = struct.Struct(">12sBBH")
_TLV = struct.Struct(">BH")
_U32 = struct.Struct(">I")


def header(call: Open, host: str, source: str, destination: str) -> bytes:
    """The whole header.

    Args:
        host: the calling host.
        source, destination: the far and the near end of the connection that brought the call to this host, written as
            ``10.0.0.1:7600`` or ``[fe80::1]:7600``; both of one family.
    """
    family, addresses = _addresses(source, destination)
    tlvs = _tlv(AUTHORITY, call.service.encode()) + _tlv(CALLING_HOST, host.encode())
    if call.caller:
        tlvs += _tlv(CALLING_SERVICE, call.caller.encode())
    if call.uid != UNKNOWN_UID:
        tlvs += _tlv(CALLING_UID, _U32.pack(call.uid))
    return _FIXED.pack(SIGNATURE, VERSION_PROXY, family, len(addresses) + len(tlvs)) + addresses + tlvs


def _tlv(kind: int, value: bytes) -> bytes:
    return _TLV.pack(kind, len(value)) + value


@lru_cache(maxsize=1024)
def _addresses(source: str, destination: str) -> tuple[int, bytes]:
    (one, port), (other, to) = _split(source), _split(destination)
    return TCP4 if len(one) == 4 else TCP6, one + other + struct.pack(">HH", port, to)


def _split(address: str) -> tuple[bytes, int]:
    host, _, port = address.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")).packed, int(port)
