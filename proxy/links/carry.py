"""The handshake over a trio socket, for the dialling and the accepting side."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import trio

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason, HandshakeError
from proxy.links.connect import BoundConnectError, connect
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello, HelloReader, check_names, encode_hello, encode_refusal
from proxy.links.options import prepare_link
from proxy.links.resumemark import LOOK, meant_untrusted, server_name
from proxy.links.tls import TlsStream
from proxy.pump.wire import Wire

_READ = 65536

Stream = trio.SocketStream | TlsStream


class NothingSaid(HandshakeError):
    """The dialler was gone before its first byte: it looked whether the port is open (a load balancer's probe, a
    monitor's), and wanted no link."""

    def __init__(self) -> None:
        super().__init__("the peer closed the connection before its first byte", CloseReason.LINK_LOST)


class HandshakeResult(NamedTuple):
    """A connection after its handshake: a plain non-blocking socket, which the receiver of this owns; the peer's HELLO;
    the bytes that came behind it; with TLS, what to read and write through instead of the socket, and the serial
    number of the peer's certificate, in hex.
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
    address: TcpAddress,
    *,
    device: LinkDevice,
    hello: Hello,
    credentials: Credentials | None = None,
    says_hello: Callable[[], None] = lambda: None,
) -> HandshakeResult:
    """Connect to a peer and make the handshake.

    Args:
        device: the address to connect from, and the interface that the link leaves through.
        credentials: None: no TLS (``security: none``).
        says_hello: called before HELLO is sent: from then on the peer may have made a link of this connection.

    Raises HandshakeError. If it fails or is cancelled, nothing is left open. If it is cancelled between HELLO and the
    answer for a new session, the peer is sent GOAWAY, as it may use the link already.
    """
    try:
        tcp = await connect(address, device)
    except OSError as error:
        raise HandshakeError(_why(error), CloseReason.PEER_UNREACHABLE) from None
    stream = protected(tcp, credentials, dialling=True, name=server_name(hello.process))
    try:
        prepare_link(tcp.socket)
        await _meet(stream, hello.to)
        says_hello()
        await _send_first(stream, encode_hello(hello))
        try:
            answer, leftover = await _read_hello(stream)
        except trio.Cancelled:
            if not hello.resumes:  # a GOAWAY would end the session, which may be resumed over another link
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


def protected(
    stream: trio.SocketStream, credentials: Credentials | None, *, dialling: bool, name: str | None = None
) -> Stream:
    """The connection, with TLS if there are credentials (`name`: as `TlsStream`). Nothing is sent yet."""
    return stream if credentials is None else TlsStream(stream, credentials, dialling=dialling, name=name)


async def _meet(stream: Stream, host: str) -> None:
    """The dialler's TLS handshake. It checks the peer's name before HELLO is sent: nothing may go to a wrong host."""
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
    """Send HELLO. With TLS a lost connection is no error here: the acceptor may have closed behind an alert that says
    why, which the next read finds.
    """
    try:
        await stream.send_all(frame)
    except trio.BrokenResourceError:
        if not isinstance(stream, TlsStream):
            raise


async def hear(tcp: trio.SocketStream) -> None:
    """Wait for the dialler's first byte, and leave it there. Raises NothingSaid if none comes any more."""
    try:
        first = await tcp.socket.recv(1, socket.MSG_PEEK)
    except OSError:  # a probe may end by a reset
        first = b""
    if not first:
        raise NothingSaid


async def meant_for(tcp: trio.SocketStream) -> str:
    """For which process of this host the dialler means the connection (`links.resumemark`); empty: it does not say.
    Waits until that can be seen, and leaves every byte there. Raises nothing: what is wrong, reading will find.
    """
    sock = tcp.socket
    try:
        seen = 0
        while True:
            data = await sock.recv(LOOK, socket.MSG_PEEK)
            # Nothing more: the dialler has closed its end.
            if (meant := meant_untrusted(data)) is not None or len(data) <= seen:
                return meant or ""
            seen = len(data)
            # Or what is there already would wake us again and again.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
            await trio.lowlevel.wait_readable(sock)
    except OSError:
        return ""
    finally:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def listen_to(stream: Stream) -> tuple[Hello, bytes]:
    """The accepting side's first half: read the dialler's HELLO. Returns it and the bytes behind it. Raises
    HandshakeError. The caller still owns the stream.
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
    """The accepting side's second half: send HELLO. Returns the plain socket, which the caller owns. Raises
    HandshakeError.

    It never waits, so that nothing can happen between the decision to take the link and its entry into the pool. HELLO
    has a few hundred bytes, and nothing else is in the new connection's send buffer.
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
    """What a link on this connection reads and writes through with TLS; None without."""
    return stream.wire if isinstance(stream, TlsStream) else None


def serial_of(stream: Stream) -> str:
    """The serial number of the peer's certificate, in hex; empty without TLS."""
    return stream.serial if isinstance(stream, TlsStream) else ""


def hang_up(handshake: HandshakeResult, reason: CloseReason) -> None:
    """Close a connection whose handshake is complete but which will not be used. Sends GOAWAY with the reason as far as
    the socket takes it. Never waits.
    """
    with handshake.sock as sock, suppress(OSError):
        (handshake.wire or sock).send(memoryview(encode_refusal(reason)))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_READ)  # close() with unread bytes would send RST, which could discard the GOAWAY


async def refuse(stream: Stream, reason: CloseReason) -> None:
    """Send a dialler GOAWAY with the reason, unless the connection is lost, and close."""
    try:
        await stream.send_all(encode_refusal(reason))
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):  # Closed: `answer` has failed and closed it
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
    """The system's words for the innermost error: trio wraps one error per address that was tried, and repeats the
    address.
    """
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, BoundConnectError):
        return error.strerror or str(error)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
