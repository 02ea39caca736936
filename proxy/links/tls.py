"""The TLS handshake of a link: the stream that HELLO goes through, and error texts for what can go wrong in it.

In TLS 1.3 the dialler's handshake ends before the acceptor has checked the dialler's certificate. If the acceptor
refuses it, the dialler gets an alert in place of the acceptor's HELLO.
"""

from __future__ import annotations

import ssl

import trio

from proxy.errors import CloseReason, HandshakeError
from proxy.links.credentials import Credentials
from proxy.links.handshake import TLS_ALERT, TLS_HANDSHAKE
from proxy.links.identity import peer_untrusted
from proxy.links.tlswire import NOT_OURS, TlsWire, reason_of
from proxy.mux.frames import FrameKind

_READ = 65536
_UNEXPECTED_MESSAGE = bytes.fromhex("15 0303 0002 02 0a")
"""A fatal alert (RFC 8446, section 6) for a peer that does not speak TLS: OpenSSL would send nothing."""
_ALERTS = {
    "unknown ca": "it is not signed by a CA that the peer trusts",
    "decrypt error": "it is not signed by a CA that the peer trusts",
    "certificate expired": "it has expired, says the peer's clock",
    "certificate required": "it got none",
    "bad certificate": "it is malformed, not valid yet, or wrongly signed",
    "unsupported certificate": "it is of a kind that the peer does not take",
    "certificate revoked": "it has been revoked",
    "certificate unknown": "it gives no reason",
}


class TlsStream:
    """A TLS connection during its handshake. It has those methods of a trio.SocketStream that `proxy.links.carry` uses.

    Args:
        name: the server name that a dialler sends in the clear (`links.resumemark`); None: none.

    Attributes:
        socket: the connection's trio socket.
        wire: what the link reads and writes through after the handshake, once its ``sock`` is set.
        peer: the host that the peer's certificate is for; serial: the certificate's serial number in hex. Both are
            empty until the handshake has ended.
    """

    def __init__(
        self, stream: trio.SocketStream, credentials: Credentials, *, dialling: bool, name: str | None = None
    ) -> None:
        self.socket = stream.socket
        context = credentials.dialling if dialling else credentials.accepting
        self.wire = TlsWire(context, server_side=not dialling, name=name)
        self.peer = self.serial = ""
        self._stream = stream
        self._mesh, self._revoked = credentials.mesh, credentials.revoked
        self._dialling = dialling
        self._begun = self._established = False

    async def shake_hands(self) -> None:
        """Make the TLS handshake, and set `peer` and `serial`.

        Raises HandshakeError; and OSError or trio.BrokenResourceError if the connection fails. After an error that TLS
        itself found, the peer has been sent an alert; a certificate that names no host, or that was revoked, is for
        the caller to refuse with GOAWAY.
        """
        while True:
            try:
                self.wire.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError as error:
                await self._flush()
                raise _refusal(error) from None
            if not await self._receive():
                raise HandshakeError("the peer closed the connection during the handshake", CloseReason.LINK_LOST)
        await self._flush()
        self._established = True
        self.peer, self.serial = peer_untrusted(self.wire.tls.getpeercert(binary_form=True) or b"", self._mesh)
        if self.serial in self._revoked:
            raise HandshakeError(f"the certificate of host {self.peer!r} has been revoked", CloseReason.REVOKED)

    async def send_all(self, data: bytes) -> None:
        """As trio.SocketStream. Sends nothing if the handshake has failed: the alert has told the peer."""
        if self._established:
            self.wire.tls.write(data)
            await self._flush()

    async def receive_some(self, max_bytes: int) -> bytes:
        """As trio.SocketStream, but returns everything that has arrived, which may exceed `max_bytes`. Raises
        HandshakeError for a TLS error, such as the peer's alert that refuses this host's certificate.
        """
        data = b""
        while True:
            try:
                while piece := self.wire.tls.read(max_bytes):
                    data += piece
                return data
            except ssl.SSLWantReadError:
                if data or not await self._receive():
                    return data
            except ssl.SSLError as error:
                raise _refusal(error) from None

    async def aclose(self) -> None:
        """As trio.SocketStream. No close_notify is sent: GOAWAY or an alert has told the peer why."""
        await self._stream.aclose()

    async def _receive(self) -> bool:
        """Read encrypted bytes and hand them to OpenSSL; False: the peer has closed the connection."""
        data = await self._stream.receive_some(_READ)
        if data and not self._begun:
            self._begun = True
            await self._check_first_byte(data[0])
        self.wire.incoming.write(data)
        return bool(data)

    async def _check_first_byte(self, first: int) -> None:
        if first in (TLS_HANDSHAKE, TLS_ALERT):
            return
        if not self._dialling:
            await self._stream.send_all(_UNEXPECTED_MESSAGE)
        spoken = "speaks plaintext" if first in (FrameKind.HELLO, FrameKind.GOAWAY) else "does not speak TLS"
        raise HandshakeError(f"the peer {spoken}, this host has links.security: mtls")

    async def _flush(self) -> None:
        if self.wire.outgoing.pending:
            await self._stream.send_all(self.wire.outgoing.read())


def _refusal(error: ssl.SSLError) -> HandshakeError:
    """The error for what OpenSSL reports: whose certificate was refused and why; anything else in OpenSSL's words."""
    reason = reason_of(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = "it is not signed by a CA in links.tls.ca" if error.verify_code in NOT_OURS else error.verify_message
        return HandshakeError(f"the peer's certificate is refused: {why}", CloseReason.WRONG_HOST)
    if reason == "peer did not return a certificate":
        return HandshakeError("the peer sent no certificate", CloseReason.WRONG_HOST)
    alert = reason.partition(" alert ")[2]
    if alert in _ALERTS:
        return HandshakeError(f"the peer refused this host's certificate: {_ALERTS[alert]}", CloseReason.WRONG_HOST)
    if reason in ("unsupported protocol", "wrong version number") or alert == "protocol version":
        return HandshakeError("the peer does not speak TLS 1.3")
    return HandshakeError(f"TLS: {reason}")
