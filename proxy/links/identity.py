"""Who a certificate says somebody is, without I/O: exactly one URI, ``spiffe://<mesh>/host/<name>`` (the SPIFFE
X.509-SVID standard, section 2: one URI, and validators must reject more).

Nothing else of a certificate counts: a common name or a DNS name may stand in it and is not looked at.
"""

from __future__ import annotations

from cryptography import x509

from control.reading.units import host_name, show
from proxy.errors import CloseReason, HandshakeError

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What the library raises for a certificate that it cannot make sense of."""


def host_uri(mesh: str, host: str) -> str:
    """The identity of a host."""
    return f"spiffe://{mesh}/host/{host}"


def uris(certificate: x509.Certificate) -> list[str]:
    """Every URI that the certificate names. Raises ValueError if its names cannot be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return []
    except UNREADABLE as error:
        raise ValueError(f"its names cannot be read: {error}") from None


def one_uri(found: list[str], allowed: str) -> str:
    """The only URI. Raises ValueError, worded as :mod:`control.reading.units` does, if there is none or another one."""
    if len(found) != 1:
        raise ValueError(f"found {len(found)} URI names; allowed: exactly one, {allowed}")
    return found[0]


def peer_host_untrusted(der: bytes, mesh: str) -> str:
    """The name of the host that a peer's certificate is for; its chain of signatures has been verified already.

    Raises only HandshakeError.
    """
    allowed = host_uri(mesh, "<name>")
    try:
        uri = one_uri(uris(x509.load_der_x509_certificate(der)), allowed)
        start = host_uri(mesh, "")
        if not uri.startswith(start):
            raise ValueError(f"found {show(uri)}; allowed: {allowed}")
        return host_name(uri.removeprefix(start))
    except UNREADABLE as error:
        raise HandshakeError(f"the peer's certificate names no host: {error}", CloseReason.WRONG_HOST) from None
