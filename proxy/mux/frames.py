"""Frames: an 8-byte header, then a payload. See SPEC.md, section 2.

The header is one big-endian 64-bit word, ``kind << 56 | stream id << 24 | payload length``, because the two hot
questions then cost one integer operation each: ``word & LENGTH_MASK`` is the length, and ``word >> KEY_SHIFT`` is kind
and id together. For a DATA frame (kind 0) that key *is* the stream id, so one look-up (`Session.near`) tells DATA
of an open stream from everything else.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from proxy.errors import CloseReason, ProtocolError

HEADER = struct.Struct(">Q")
HEADER_SIZE = 8
LENGTH_MASK = 0xFFFFFF
KEY_SHIFT = 24
KIND_SHIFT = 56
ID_MASK = 0xFFFFFFFF

VERSION = 1
MAGIC = b"HSTL"

MAX_DATA = 65536
"""Largest DATA payload, bytes. A 1 Gbit/s cable carries it in half a millisecond; no small message waits longer behind
one frame."""
MAX_CONTROL = 4096
"""Largest payload of any other frame, bytes; HELLO is the only one that comes near."""
MAX_ID = 0xFFFFFFFF
MAX_NAME = 255
UNKNOWN_UID = 0xFFFFFFFF
NAMESAKE = "@namesake"
"""Called as a service, it tells the peer that other proxies bear its name (SPEC.md, section 5.2). No service can be
called so."""


class FrameKind(enum.IntEnum):
    """The first byte of a frame."""

    DATA = 0x00
    OPEN = 0x02
    OPENED = 0x03
    REFUSE = 0x04
    RST = 0x05
    CREDIT = 0x06
    ACK = 0x07
    PING = 0x08
    PONG = 0x09
    GOAWAY = 0x0A
    HELLO = 0x0F
    DATA_FIN = 0x80
    """DATA with the FIN flag: the last bytes (possibly none) of this direction of the stream."""


class Via(NamedTuple):
    """What OPEN may say about the way that a call has come, so that one that goes round in a circle is found."""

    hops: int
    """Upstreams that it has passed before, each reached by another proxy's or this one's delivery; 0 to 255."""
    source: tuple[str, int] | None = None
    """IP address and port that it came from through TCP; None: through a Unix socket, or not told."""


class Open(NamedTuple):
    """Payload of OPEN: which service is called and who calls it."""

    service: str
    uid: int = UNKNOWN_UID
    """Unix user id of the caller (SO_PEERCRED) on the calling host; UNKNOWN_UID where the socket type has none."""
    caller: str = ""
    """The calling service's name where the calling host knows it, else empty."""
    via: Via | None = None
    """None for a call of which the calling host knows nothing more."""


_U8 = struct.Struct(">B")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


def encode(kind: FrameKind, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """One whole frame. Does not check the size limits."""
    return HEADER.pack(kind << 56 | stream_id << KEY_SHIFT | len(payload)) + payload


def encode_open(call: Open) -> bytes:
    """Payload of OPEN. Raises ValueError for names over MAX_NAME bytes; configuration keeps them far shorter."""
    payload = _encode_plain(call.service, call.uid, call.caller)
    return payload if call.via is None else payload + _encode_via(call.via)


@lru_cache(maxsize=1024)
def _encode_plain(service: str, uid: int, caller: str) -> bytes:
    name, calling = service.encode(), caller.encode()
    if not 0 < len(name) <= MAX_NAME or len(calling) > MAX_NAME:
        raise ValueError(f"service and caller names have at most {MAX_NAME} bytes")
    return b"".join((_U32.pack(uid), _U8.pack(len(name)), name, _U8.pack(len(calling)), calling))


def _encode_via(via: Via) -> bytes:
    if via.source is None:
        return _U8.pack(via.hops)
    host, port = via.source
    return _U8.pack(via.hops) + _packed(host) + _U16.pack(port)


def _packed(host: str) -> bytes:
    if ":" in host:
        return ipaddress.IPv6Address(host.partition("%")[0]).packed
    return bytes(map(int, host.split(".")))  # ipaddress takes ten times as long


KNOWN_OPENS: dict[bytes, Open] = {}
"""Payloads that were decoded lately, at most MOST_KNOWN: a caller's are all the same."""
MOST_KNOWN = 1024


def decode_open_untrusted(payload: bytes) -> Open:
    """The reverse of `encode_open`, which keeps what it finds (KNOWN_OPENS). Raises only ProtocolError."""
    try:
        (uid,) = _U32.unpack_from(payload)
        end = 5 + payload[4]
        service = payload[5:end].decode()
        last = end + 1 + payload[end]
        caller = payload[end + 1 : last].decode()
        if not service or last > len(payload):
            raise ValueError
        via = _decode_via(payload[last:]) if last < len(payload) else None
    except (struct.error, IndexError, ValueError):
        raise ProtocolError(f"malformed OPEN payload of {len(payload)} bytes") from None
    if len(KNOWN_OPENS) >= MOST_KNOWN:
        KNOWN_OPENS.clear()
    KNOWN_OPENS[payload] = found = Open(service, uid, caller, via)
    return found


def _decode_via(data: bytes) -> Via:
    """Raises ValueError."""
    if len(data) == 1:
        return Via(data[0])
    address = data[1:-2]
    host = ".".join(map(str, address)) if len(address) == 4 else str(ipaddress.IPv6Address(address))
    return Via(data[0], (host, int.from_bytes(data[-2:], "big")))


REASON_BYTES = {reason: bytes([reason]) for reason in CloseReason}
"""By reason, what `encode_reason` makes."""
REASONS = {payload: reason for reason, payload in REASON_BYTES.items()}
"""By payload, what `decode_reason_untrusted` finds."""


NEWEST_REASON = int(max(CloseReason))
FIRST_REASONS = 19
"""The highest close reason that every proxy of this version of the protocol knows."""
_OLDER = {
    CloseReason.LOCAL_SHORTAGE: CloseReason.OVERLOADED,
    CloseReason.LOOP: CloseReason.NOT_ALLOWED,
    CloseReason.PEER_GONE: CloseReason.RESUME_TIMEOUT,
    CloseReason.UNREAD: CloseReason.ABORTED,
}
"""What a peer is told that does not know the newer reason; an unknown one would end its link."""


def known_to(newest: int, reason: CloseReason) -> CloseReason:
    """The reason to tell a peer that knows reasons up to `newest`."""
    return reason if reason <= max(newest, FIRST_REASONS) else _OLDER[reason]


encode_reason: Callable[[CloseReason], bytes] = REASON_BYTES.__getitem__
"""Payload of RST, REFUSE and GOAWAY."""


def decode_reason_untrusted(payload: bytes, kind: str) -> CloseReason:
    """The reverse of `encode_reason`. Raises only ProtocolError."""
    reason = REASONS.get(payload)
    if reason is None:
        raise ProtocolError(f"{kind} with unknown close reason {payload.hex() or '(none)'}")
    return reason


def encode_u32(value: int) -> bytes:
    """Payload of CREDIT: bytes granted."""
    return _U32.pack(value)


def decode_u32_untrusted(payload: bytes, kind: str) -> int:
    """The reverse of `encode_u32`. Raises only ProtocolError."""
    if len(payload) != 4:
        raise ProtocolError(f"{kind} payload has {len(payload)} bytes; 4 expected")
    return int.from_bytes(payload, "big")


def encode_u64(value: int) -> bytes:
    """Payload of ACK (session offset) and of PING and PONG (token)."""
    return _U64.pack(value)


def decode_u64_untrusted(payload: bytes, kind: str) -> int:
    """The reverse of `encode_u64`. Raises only ProtocolError."""
    if len(payload) != 8:
        raise ProtocolError(f"{kind} payload has {len(payload)} bytes; 8 expected")
    return int.from_bytes(payload, "big")
