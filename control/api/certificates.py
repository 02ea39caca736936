"""Certificates, keys and certificate requests as hosts, control servers and commands read and write them. No files,
store or clock.

All keys made here are P-256: every TLS 1.3 stack has it, and OpenSSL shakes hands with it faster than with anything
else that is not the same curve.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from control.api.identity import UNREADABLE
from control.base.reading.units import show

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

KEYS = "an EC key (P-256, P-384, P-521) or an Ed25519 key"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
UNREADABLE_PEM = (*UNREADABLE, UnsupportedAlgorithm, TypeError)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request for this key (PEM). It names nobody: the CA would not look."""
    return (
        x509.CertificateSigningRequestBuilder(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, hex: what a token holds."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_roots(text: str) -> list[x509.Certificate]:
    """The roots in a PEM text, at least one. Raises ValueError."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
        for each in found:
            constraints = each.extensions.get_extension_for_class(x509.BasicConstraints).value
            each.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
            if not constraints.ca or not is_supported(each.public_key()):
                raise ValueError("not a CA of ours")
    except (*UNREADABLE_PEM, x509.ExtensionNotFound):
        raise ValueError(f"found no CA certificate (PEM) with {KEYS}") from None
    return found


def read_certificate(text: str) -> x509.Certificate:
    """The first certificate in a PEM text. Raises ValueError."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())[0]
        _ = found.public_key(), found.extensions
    except UNREADABLE_PEM:
        raise ValueError("found no readable certificate (PEM)") from None
    return found


def refuse_no_ca(found: list[x509.Certificate]) -> None:
    """Raise ValueError for the first of these certificates, all readable ones, that is not of a CA: it would make
    nobody trusted, or one host alone.
    """
    for each in found:
        if why := no_ca(each):
            whose = each.subject.rfc4514_string() or f"serial number {each.serial_number:x}"
            raise ValueError(f"found the certificate of {show(whose)}, {why}; allowed: CA certificates")


def no_ca(certificate: x509.Certificate) -> str:
    """Why OpenSSL (check_ca in its v3_purp.c) takes the certificate, a readable one, for no CA's; empty if it does."""
    try:
        signs = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = None
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "which is not a CA"
    except x509.ExtensionNotFound:
        # Roots from before X.509 v3 have no extensions; TLS takes them if they have signed themselves.
        old_root = certificate.version is x509.Version.v1 and certificate.subject == certificate.issuer
        if not old_root and signs is None:
            return "which does not say that it is a CA (basicConstraints)"
    return "whose keyUsage lets it sign no certificates" if signs is False else ""


def issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether the root has signed it."""
    try:
        certificate.verify_directly_issued_by(root)
    except (*UNREADABLE_PEM, InvalidSignature):
        return False
    return True


def pem(certificate: x509.Certificate) -> str:
    """The certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM).decode()


def key_pem(key: Key) -> str:
    """A private key as PEM (PKCS 8), without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def signature_hash(key: Key) -> hashes.SHA256 | None:
    """Of signatures; Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def is_supported(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey)
