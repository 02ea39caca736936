"""For which process of a host a connection to its links' port is meant, seen before a byte of it is read (sans-IO).

After a takeover two processes of one host share that port, and the one that accepts has none of the sessions that the
other one still lets finish. So a dialler that wants to resume a session marks the connection with the ``instance`` of
the process that has it (SPEC.md, section 9): in HELLO, or with TLS, where HELLO can be read by nobody but the process
that makes the handshake, in the server name of the ClientHello. An ``instance`` is no secret: HELLO tells it to every
peer, and all that anybody gains by a forged mark is to be refused by the other process.

What is looked at here has not been authenticated, and is looked at by that process again, from its first byte.
"""

from __future__ import annotations

import re

import msgspec

from proxy.errors import HandshakeError
from proxy.links.handshake import TLS_HANDSHAKE, HelloReader
from proxy.mux.frames import HEADER_SIZE, MAX_CONTROL

LOOK = 2 * (HEADER_SIZE + MAX_CONTROL)
"""Most bytes that are looked at: a HELLO is smaller, and a ClientHello has 0.3 to 2 KiB."""
SUFFIX = ".hostlane.invalid"
"""Behind the ``instance`` in a server name. No name that ends so exists (RFC 6761)."""
_INSTANCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_RECORD, _HANDSHAKE = 5, 4
"""Bytes of the headers of a TLS record and of a handshake message (RFC 8446, sections 5.1 and 4)."""
_CLIENT_HELLO = 1
_VERSION_AND_RANDOM = 2 + 32
_SERVER_NAME, _HOST_NAME = 0, 0
"""Number of the extension, and of the kind of name in it (RFC 6066, section 3)."""


class _Malformed(Exception):
    """Not a ClientHello."""


def is_instance(text: str) -> bool:
    """Whether it can be a mark: an ``instance`` as this program makes them (`links.carry.new_id`)."""
    return _INSTANCE.fullmatch(text) is not None


def server_name(instance: str | msgspec.UnsetType) -> str | None:
    """The server name that says for which process a TLS connection is meant; None: for whichever accepts."""
    return f"{instance}{SUFFIX}" if instance and is_instance(instance) else None


def meant_untrusted(data: bytes) -> str | None:
    """The ``instance`` of the process for which a connection is meant that begins with `data`; empty: it does not say,
    or is none of a peer's. None: more bytes are needed. Raises nothing.
    """
    if not data:
        return None
    try:
        meant = _in_client_hello(data) if data[0] == TLS_HANDSHAKE else _in_hello(data)
    except (_Malformed, HandshakeError):
        return ""
    if meant is None:
        return None if len(data) < LOOK else ""
    return meant if is_instance(meant) else ""


def _in_hello(data: bytes) -> str | None:
    hello = HelloReader().feed_untrusted(data)
    if hello is None:
        return None
    return hello.process or "" if hello.resumes else ""


def _in_client_hello(data: bytes) -> str | None:
    """The host name in a ClientHello, without `SUFFIX`; empty: there is none. Raises _Malformed."""
    message, whole = _fragments(data)
    if message and message[0] != _CLIENT_HELLO:
        raise _Malformed
    if len(message) >= _HANDSHAKE:
        length = int.from_bytes(message[1:_HANDSHAKE], "big")
        if length > LOOK:
            raise _Malformed
        if len(message) >= _HANDSHAKE + length:
            name = _host_name(_Reader(message[_HANDSHAKE : _HANDSHAKE + length]))
            return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else ""
    if not whole:
        raise _Malformed
    return None


def _fragments(data: bytes) -> tuple[bytes, bool]:
    """What the handshake records at the beginning of `data` carry, the last one maybe cut; False: something else
    follows them.
    """
    message, at = b"", 0
    while at < len(data):
        if data[at] != TLS_HANDSHAKE:
            return message, False
        header = data[at : at + _RECORD]
        if len(header) < _RECORD:
            break
        length = int.from_bytes(header[3:], "big")
        if not length:  # RFC 8446, section 5.1: never for handshake messages
            return message, False
        at += _RECORD
        message += data[at : at + length]
        at += length
    return message, True


def _host_name(hello: _Reader) -> str:
    """The first host name in the body of a ClientHello (RFC 8446, section 4.1.2); empty: none. Raises _Malformed."""
    hello.take(_VERSION_AND_RANDOM)
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        hello.vector(size)
    if hello.done:
        return ""
    extensions = _Reader(hello.vector(2))
    while not extensions.done:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names = _Reader(_Reader(content).vector(2))
            while not names.done:
                sort, name = names.number(1), names.vector(2)
                if sort == _HOST_NAME:
                    return name.decode("ascii", "replace")
    return ""


class _Reader:
    """Takes a message apart, from its beginning. Raises _Malformed if it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise _Malformed
        self._at += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes behind their length, which has `size` bytes."""
        return self.take(self.number(size))
