"""Who a certificate says somebody is, without I/O: exactly one URI, ``spiffe://<mesh>/host/<name>`` for a host and
``spiffe://<mesh>/control/<name>`` for a control server (the SPIFFE X.509-SVID standard, section 2: one URI, and
validators must reject more).

Nothing else of a certificate counts as a host's identity: a common name or a DNS name may stand in it and is not looked
at.
"""

from __future__ import annotations

from cryptography import x509

from control.base.reading.units import host_name, show

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What the library raises for a certificate that it cannot make sense of."""

BACKDATED = 300.0
"""Seconds that a certificate of the control plane is valid before it was issued: clocks may differ by so much.
(Kerberos recommends the same, RFC 4120 section 8.2.)"""


def host_uri(mesh: str, host: str) -> str:
    """The identity of a host."""
    return f"spiffe://{mesh}/host/{host}"


def control_uri(mesh: str, name: str) -> str:
    """The identity of a control server."""
    return f"spiffe://{mesh}/control/{name}"


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
    """The only URI. Raises ValueError, worded as :mod:`control.base.reading.units` does, if there is none, or more
    than one."""
    if len(found) != 1:
        raise ValueError(f"found {len(found)} URI names; allowed: exactly one, {allowed}")
    return found[0]


def host_of(certificate: x509.Certificate, mesh: str) -> str:
    """The name of the host that a certificate is for. Raises ValueError if it is for none, or of another mesh."""
    allowed = host_uri(mesh, "<name>")
    uri = one_uri(uris(certificate), allowed)
    start = host_uri(mesh, "")
    if not uri.startswith(start):
        raise ValueError(f"found {show(uri)}; allowed: {allowed}")
    return host_name(uri.removeprefix(start))


def server_of(certificate: x509.Certificate, mesh: str) -> str | None:
    """The name of the control server that a certificate is for; None: it is for none of this mesh. Raises ValueError if
    its names cannot be read, or are not one.
    """
    start = control_uri(mesh, "")
    uri = one_uri(uris(certificate), control_uri(mesh, "<name>"))
    return uri.removeprefix(start) if uri.startswith(start) else None


def serial_of(certificate: x509.Certificate) -> str:
    """Its serial number as it stands in messages, logs and the store: lower-case hex."""
    return f"{certificate.serial_number:x}"


def issued_at(certificate: x509.Certificate) -> float:
    """When the control plane issued it, in whole seconds since 1970."""
    return certificate.not_valid_before_utc.timestamp() + BACKDATED
