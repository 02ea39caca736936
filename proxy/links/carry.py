"""Carrying the handshake out over a trio socket, from either side."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from typing import NamedTuple

import trio

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason, HandshakeError
from proxy.links.credentials import Credentials
from proxy.links.handshake import Hello, HelloReader, check_names, encode_hello, encode_refusal
from proxy.links.options import prepare_link
from proxy.links.tls import TlsStream
from proxy.pump.link import Wire

_READ = 65536

Stream = trio.SocketStream | TlsStream


class HandshakeResult(NamedTuple):
    """A connection past its handshake: a plain non-blocking socket (the receiver owns it), the peer's HELLO, what
    came behind it, what to read and write through instead of the socket (TLS), and the serial number of the
    certificate that the peer showed.
    """

    sock: socket.socket
    hello: Hello
    leftover: bytes
    wire: Wire | None = None
    serial: str = ""


def new_id() -> str:
    """A session or instance id: 128 random bits in hex."""
    return secrets.token_hex(16)


async def dial(
    address: TcpAddress, *, source: str | None, hello: Hello, credentials: Credentials | None = None
) -> HandshakeResult:
    """Connect to a peer and shake hands.

    Args:
        source: local address to connect from, so that the link leaves through the interface meant for it.
        credentials: None: no TLS (``security: none``).

    Raises HandshakeError. Cancelled or failed, nothing is left open; cancelled while a new session waits for the
    answer, the peer is told, as it may have begun to use it.
    """
    try:
        tcp = await trio.open_tcp_stream(address.host, address.port, local_address=source)
    except OSError as error:
        raise HandshakeError(_why(error), CloseReason.PEER_UNREACHABLE) from None
    stream = protected(tcp, credentials, dialling=True)
    try:
        prepare_link(tcp.socket)
        await _meet(stream, hello.to)
        await _send_first(stream, encode_hello(hello))
        try:
            answer, leftover = await _read_hello(stream)
        except trio.Cancelled:
            if not hello.resumes:  # that one may yet go on
                hang_up(HandshakeResult(_detach(stream), hello, b"", wire_of(stream)), CloseReason.PEER_UNREACHABLE)
            raise
        check_names(answer, own=hello.host, peer=hello.to)
        if answer.session != hello.session:
            raise HandshakeError("the peer answered for another session")
        if answer.resumes and not hello.resumes:
            raise HandshakeError("the peer wants to go on with a session that is new")
        return HandshakeResult(_detach(stream), answer, leftover, wire_of(stream), serial_of(stream))
    except (OSError, trio.BrokenResourceError) as error:
        raise HandshakeError(_why(error), CloseReason.LINK_LOST) from None
    finally:
        # Without a checkpoint: cancelled there, the detached socket would be lost on its way to the caller.
        tcp.socket.close()


def protected(stream: trio.SocketStream, credentials: Credentials | None, *, dialling: bool) -> Stream:
    """The same connection with TLS on it, if there are credentials. Nothing is sent yet."""
    return stream if credentials is None else TlsStream(stream, credentials, dialling=dialling)


async def _meet(stream: Stream, host: str) -> None:
    """The dialler's TLS handshake: nothing of ours, not even HELLO, goes to another host than the one meant."""
    if isinstance(stream, TlsStream):
        try:
            await stream.shake_hands()
            if stream.peer != host:
                text = f"host {stream.peer!r} answered instead of {host!r}, says its certificate"
                raise HandshakeError(text, CloseReason.WRONG_HOST)
        except HandshakeError as error:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(encode_refusal(error.reason))
            raise


async def _send_first(stream: Stream, frame: bytes) -> None:
    """Send HELLO. An acceptor that has hung up by now may have said why before: that is for the next read to find."""
    try:
        await stream.send_all(frame)
    except trio.BrokenResourceError:
        if not isinstance(stream, TlsStream):
            raise


async def listen_to(stream: Stream) -> tuple[Hello, bytes]:
    """The accepting side's first half: the dialler's HELLO and what came behind it. Raises HandshakeError; the caller
    keeps the stream.
    """
    try:
        prepare_link(stream.socket)
        if not isinstance(stream, TlsStream):
            return await _read_hello(stream)
        await stream.shake_hands()
        hello, leftover = await _read_hello(stream)
        if hello.host != stream.peer:
            text = f"host {stream.peer!r}, says its certificate, calls itself {hello.host!r}"
            raise HandshakeError(text, CloseReason.WRONG_HOST)
        return hello, leftover
    except (OSError, trio.BrokenResourceError) as error:
        raise HandshakeError(_why(error), CloseReason.LINK_LOST) from None


def answer(stream: Stream, hello: Hello) -> socket.socket:
    """The accepting side's second half: agree. Returns the plain socket, which the caller owns. Raises
    HandshakeError.

    Never waits, so that whoever decided to take the link can put it to use before anything else happens: HELLO has a
    few hundred bytes, and nothing else is in the new connection's send buffer.
    """
    sock, frame = _detach(stream), memoryview(encode_hello(hello))
    try:
        if (wire_of(stream) or sock).send(frame) < len(frame):
            raise HandshakeError("the connection does not take a HELLO", CloseReason.LINK_LOST)
    except OSError as error:
        sock.close()
        raise HandshakeError(_why(error), CloseReason.LINK_LOST) from None
    except HandshakeError:
        sock.close()
        raise
    return sock


def wire_of(stream: Stream) -> Wire | None:
    """What a link on this connection reads and writes through, if not through its socket."""
    return stream.wire if isinstance(stream, TlsStream) else None


def serial_of(stream: Stream) -> str:
    """That of the certificate which the peer showed, in hex; empty without TLS."""
    return stream.serial if isinstance(stream, TlsStream) else ""


def hang_up(handshake: HandshakeResult, reason: CloseReason) -> None:
    """Close a link that nobody wants any more after its handshake, and tell the peer why as far as the socket takes
    it. Never waits.
    """
    with handshake.sock as sock, suppress(OSError):
        (handshake.wire or sock).send(memoryview(encode_refusal(reason)))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_READ)  # with bytes unread, closing would be a reset


async def refuse(stream: Stream, reason: CloseReason) -> None:
    """Tell a dialler why not, if it still listens, and close."""
    try:
        await stream.send_all(encode_refusal(reason))
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):  # closed: `answer` has failed
        pass
    await stream.aclose()


async def _read_hello(stream: Stream) -> tuple[Hello, bytes]:
    reader = HelloReader()
    while True:
        data = await stream.receive_some(_READ)
        if not data:
            raise HandshakeError("the peer closed the connection during the handshake", CloseReason.LINK_LOST)
        if (hello := reader.feed_untrusted(bytes(data))) is not None:
            return hello, reader.leftover


def _detach(stream: Stream) -> socket.socket:
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    if isinstance(stream, TlsStream):
        stream.wire.sock = sock
    return sock


def _why(error: BaseException) -> str:
    """The system's words for the innermost error: trio wraps one error per address that was tried."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
