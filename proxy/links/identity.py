"""Which host is at the other end of a link, according to its certificate."""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509

from control.api.identity import UNREADABLE, host_of, serial_of
from proxy.errors import CloseReason, HandshakeError


class PeerIdentity(NamedTuple):
    """The host that a certificate is for, and its serial number in hex."""

    host: str
    serial: str


def peer_untrusted(der: bytes, mesh: str) -> PeerIdentity:
    """The host that a peer's certificate is for. The chain of signatures must have been verified already.

    Raises only HandshakeError.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return PeerIdentity(host_of(certificate, mesh), serial_of(certificate))
    except UNREADABLE as error:
        raise HandshakeError(f"the peer's certificate names no host: {error}", CloseReason.WRONG_HOST) from None
