"""The mesh's CA: a root, and what it signs. Without files, store or clock.

Of a certificate request nothing counts but its public key, for which the asker must have the private one: names,
purposes and validity are the CA's to decide.

All keys made here are P-256: every TLS 1.3 stack has it, and OpenSSL shakes hands with it faster than with anything
else that is not the same curve.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.api.certificates import (
    KEYS,
    UNREADABLE_PEM,
    Key,
    PublicKey,
    is_supported,
    new_key,
    pem,
    signature_hash,
)
from control.api.identity import BACKDATED, control_uri, host_uri, serial_of
from control.api.mesh import control_name
from control.base.reading.units import show

ROOT_LIFETIME = 3653 * 86400.0
"""Seconds, ten years: a root is replaced by rotation, never by running out."""
MAX_CSR_BYTES = 16 << 10
"""A request for a P-256 key has some 500 bytes; who sends more than this sends something else."""



class RootCa(NamedTuple):
    """A CA: its certificate and private key."""

    certificate: x509.Certificate
    key: Key

    @property
    def id(self) -> str:
        """Its `root_id`."""
        return root_id(self.certificate)


class CertificateNames(NamedTuple):
    """Whom a certificate is for: one URI, and the DNS names beside it (control servers only)."""

    uri: str
    dns: tuple[str, ...] = ()

    @classmethod
    def host(cls, mesh: str, host: str) -> CertificateNames:
        """A host; it has no DNS name, so it cannot pose as a control server."""
        return cls(host_uri(mesh, host))

    @classmethod
    def control(cls, mesh: str, name: str) -> CertificateNames:
        """A control server."""
        return cls(control_uri(mesh, name), (control_name(mesh),))


class IssuedCertificate(NamedTuple):
    """A certificate that a root has issued: PEM, serial number (hex), end of its validity (seconds since 1970)."""

    certificate: str
    serial: str
    not_after: float




def new_root(mesh: str, now: float, key: Key | None = None) -> RootCa:
    """A new CA of the mesh, with this key or a fresh one. `now`: seconds since 1970."""
    key = new_key() if key is None else key
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hostlane"),
            # Its own name each time: what verifies a chain finds the issuer by it when two roots are in force.
            x509.NameAttribute(NameOID.COMMON_NAME, f"{mesh} CA {_key_id(key.public_key())}"[:64]),
        ]
    )
    builder = _builder(name, name, key.public_key(), now - BACKDATED, now + ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{mesh}")]), critical=False
    )
    return RootCa(builder.sign(key, signature_hash(key)), key)


def issue(
    root: RootCa, public_key: PublicKey, names: CertificateNames, now: float, lifetime: float
) -> IssuedCertificate:
    """A certificate for both ends of a connection, valid from `BACKDATED` before `now` for `lifetime` seconds after it,
    and not longer than the root.
    """
    end = min(now + lifetime, root.certificate.not_valid_after_utc.timestamp())
    # For people, and with a "/" in it: where there is no DNS name, OpenSSL would take a common name for one.
    label = "/".join(names.uri.split("/")[-2:])[:64]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    builder = _builder(subject, root.certificate.subject, public_key, now - BACKDATED, end)
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    alternatives = [x509.UniformResourceIdentifier(names.uri), *(x509.DNSName(name) for name in names.dns)]
    for extension, critical in (
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName(alternatives), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(root.key, signature_hash(root.key))
    return IssuedCertificate(pem(certificate), serial_of(certificate), certificate.not_valid_after_utc.timestamp())




def requested_key_untrusted(csr: str) -> PublicKey:
    """The public key of a request (PEM) whose sender has the private one. Raises only ValueError."""
    if len(csr) > MAX_CSR_BYTES:
        raise ValueError(f"found {len(csr)} characters; allowed: a certificate request (PEM)")
    try:
        found = x509.load_pem_x509_csr(csr.encode())
        key = found.public_key()
    except UNREADABLE_PEM:
        raise ValueError(f"found {show(csr)}; allowed: a certificate request (PEM) for {KEYS}") from None
    # The kind first: checking the signature of a huge RSA key is work that a stranger would give us.
    if not is_supported(key):
        raise ValueError(f"found a key of another kind; allowed: {KEYS}")
    try:
        valid = found.is_signature_valid
    except UNREADABLE_PEM:
        valid = False
    if not valid:
        raise ValueError("its signature is not made with its key; allowed: the key that it is for")
    assert isinstance(key, PublicKey)
    return key


def root_id(certificate: x509.Certificate) -> str:
    """A short name of a root, after its public key: 16 hex digits."""
    return _key_id(certificate.public_key())  # type: ignore[arg-type]  # checked by read_root


def key_id(key: Key) -> str:
    """The `root_id` of the root that has this key."""
    return _key_id(key.public_key())










def issuer_of(certificate: x509.Certificate) -> bytes:
    """The name of the CA that has issued it, which for a root is its own. Each root has a name of its own, and TLS
    takes no certificate for a root's that does not bear it."""
    return certificate.issuer.public_bytes()


def mesh_of(root: x509.Certificate) -> str | None:
    """The mesh that a root was made for; None if it does not say, as one made by other tools."""
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found[0].removeprefix("spiffe://") if found else None


def read_key(text: bytes) -> Key:
    """A private key (PEM, no passphrase). Raises ValueError."""
    try:
        key = load_pem_private_key(text, None)
    except TypeError:
        raise ValueError("found an encrypted key; allowed: one without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("found no readable private key; allowed: a PEM private key") from None
    if not is_supported(key.public_key()):
        raise ValueError(f"found a key of another kind; allowed: {KEYS}")
    assert isinstance(key, Key)
    return key










def _key_id(key: PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, start: float, end: float
) -> x509.CertificateBuilder:
    # X.509 has whole seconds; rounded down at both ends, so that nothing is valid for longer than meant.
    first, last = (datetime.fromtimestamp(int(moment), UTC) for moment in (start, end))
    if last <= first:
        last = first + timedelta(seconds=1)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), first, last)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
