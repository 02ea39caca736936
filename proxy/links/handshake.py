"""The handshake of a link, without I/O: HELLO from the dialler, HELLO (or GOAWAY with a reason) from the acceptor.
SPEC.md, section 4.

``session``, ``received`` and ``resumes`` serve to resume a session over a new link (SPEC.md, section 9).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from proxy.errors import CloseReason, HandshakeError, ProtocolError
from proxy.mux import frames
from proxy.mux.frames import FIRST_REASONS, HEADER, HEADER_SIZE, MAGIC, VERSION, FrameKind
from proxy.mux.session import MAX_CREDIT, SessionSettings

_PREFIX = struct.Struct(">4sH")
TLS_HANDSHAKE, TLS_ALERT = 0x16, 0x15
"""First byte of a TLS record: of a peer that begins with TLS, and of a TLS peer's answer to something else."""
MIN_STREAM_CREDIT = 16 * 1024
"""Bytes: the most that may be sent before OPENED. A peer that grants less could not take what the protocol allows us to
send at once."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of each side. Unknown fields are ignored, so that later versions can add some."""

    host: str
    """Name of the sending host."""
    to: str
    """Name of the host that the sender wants to reach: another host that has got its address must refuse."""
    instance: str
    """Random id of the sending process, so that a restarted peer is recognised."""
    session: str
    """Session id, chosen by the dialler and repeated by the acceptor."""
    received: int = 0
    """Session offset up to which the sender has received; more than 0 only when resuming."""
    resumes: bool = False
    """Dialler: the session had another link before, and is to be resumed. Acceptor: it is resumed."""
    stream_credit: int
    max_streams: int
    gone: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Ids of sessions that the sender dialled and has ended while they had no link. Left out if there are none."""
    unheard: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Ids of sessions that the receiver may have with the sender, and of which the sender has not handled a single
    frame and never will. Left out if there are none."""
    reasons: int = FIRST_REASONS
    """The highest close reason that the sender knows."""
    via: bool = False
    """Whether the sender can read what OPEN says about a call's way (`frames.Via`)."""
    process: str | msgspec.UnsetType = msgspec.UNSET
    """Dialler that resumes: ``instance`` of the process of the receiver that has the session, so that another one that
    listens in its place passes the connection on (`links.resumemark`)."""
    beside: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """``instance`` of earlier processes of the sender that still let their streams finish, and may resume their
    sessions. Left out if there are none."""
    opens_per_second: int | msgspec.UnsetType = msgspec.UNSET
    """Streams that the receiver may open a second, and as many at once. Left out if the sender does not count them."""

    @property
    def settings(self) -> SessionSettings:
        """The limits that the sender sets for us."""
        return SessionSettings(
            stream_credit=self.stream_credit,
            max_streams=self.max_streams,
            reasons=self.reasons,
            via=self.via,
            opens_per_second=None if self.opens_per_second is msgspec.UNSET else self.opens_per_second,
        )


def encode_hello(hello: Hello) -> bytes:
    """The whole HELLO frame."""
    return frames.encode(FrameKind.HELLO, 0, _PREFIX.pack(MAGIC, VERSION) + msgspec.json.encode(hello))


def encode_refusal(reason: CloseReason) -> bytes:
    """The frame that an acceptor sends instead of HELLO."""
    return frames.encode(FrameKind.GOAWAY, 0, frames.encode_reason(reason))


def resuming(hello: Hello, received: int, process: str | msgspec.UnsetType = msgspec.UNSET) -> Hello:
    """The same HELLO, for a session that is resumed and of which its sender has received so many bytes; `process`: as
    `Hello.process`.
    """
    return msgspec.structs.replace(hello, received=received, resumes=True, process=process)


def without(hello: Hello, lost: Mapping[str, bool]) -> Hello:
    """The same HELLO, saying that its sender does not have these sessions (any more), and whether it ever heard of each
    (`Hello.gone`) or not (`Hello.unheard`).
    """
    gone = tuple(key for key, heard in lost.items() if heard)
    unheard = tuple(key for key, heard in lost.items() if not heard)
    return msgspec.structs.replace(hello, gone=gone or msgspec.UNSET, unheard=unheard or msgspec.UNSET)


class Refused(HandshakeError):
    """The peer has answered HELLO with GOAWAY: it has made no link, and knows that this side has none."""


class HelloReader:
    """Collects bytes until the peer's first frame is whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed_untrusted(self, data: bytes) -> Hello | None:
        """More bytes; returns the HELLO once it is there. Raises only HandshakeError."""
        self._data += data
        if not self._data:
            return None
        if self._data[0] in (TLS_HANDSHAKE, TLS_ALERT):
            raise HandshakeError("the peer speaks TLS, this host has links.security: none")
        if self._data[0] not in (FrameKind.HELLO, FrameKind.GOAWAY):
            raise HandshakeError("the peer does not speak Hostlane")
        if len(self._data) < HEADER_SIZE:
            return None
        (word,) = HEADER.unpack_from(self._data)
        end = HEADER_SIZE + (word & frames.LENGTH_MASK)
        if end > HEADER_SIZE + frames.MAX_CONTROL:
            raise HandshakeError("the peer does not speak Hostlane")
        if len(self._data) < end:
            return None
        payload = bytes(self._data[HEADER_SIZE:end])
        del self._data[:end]
        return _decode_untrusted(FrameKind(word >> 56), payload)

    @property
    def leftover(self) -> bytes:
        """The bytes behind the HELLO: the first ones of the session."""
        return bytes(self._data)


def _decode_untrusted(kind: FrameKind, payload: bytes) -> Hello:
    if kind is FrameKind.GOAWAY:
        try:
            reason = frames.decode_reason_untrusted(payload, "GOAWAY")
        except ProtocolError as error:
            raise HandshakeError(str(error)) from None
        raise Refused(f"the peer refused: {reason.label}", reason)
    if payload[:4] != MAGIC or len(payload) < _PREFIX.size:
        raise HandshakeError("the peer does not speak Hostlane")
    version = _PREFIX.unpack_from(payload)[1]
    if version != VERSION:
        raise HandshakeError(f"the peer speaks version {version} of the protocol, this host version {VERSION}")
    try:
        hello = msgspec.json.decode(payload[_PREFIX.size :], type=Hello)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HandshakeError(f"malformed HELLO: {error}") from None
    if not MIN_STREAM_CREDIT <= hello.stream_credit <= MAX_CREDIT or not 0 < hello.max_streams < 1 << 31:
        raise HandshakeError(f"HELLO with stream_credit {hello.stream_credit}, max_streams {hello.max_streams}")
    if hello.opens_per_second is not msgspec.UNSET and hello.opens_per_second < 1:
        raise HandshakeError(f"HELLO with opens_per_second {hello.opens_per_second}")
    if hello.received < 0 or (hello.received and not hello.resumes):
        raise HandshakeError(f"HELLO with received {hello.received}, resumes {str(hello.resumes).lower()}")
    return hello


def check_names(hello: Hello, *, own: str, peer: str | None) -> None:
    """Check that each host wants to reach the other one. Raises HandshakeError.

    Args:
        peer: the host that this side dialled; None on the accepting side, which checks the name against its peers
            afterwards.
    """
    if hello.to != own:
        raise HandshakeError(
            f"host {hello.host!r} wants to reach {hello.to!r}, this is {own!r}", CloseReason.WRONG_HOST
        )
    if peer is not None and hello.host != peer:
        raise HandshakeError(f"host {hello.host!r} answered instead of {peer!r}", CloseReason.WRONG_HOST)
