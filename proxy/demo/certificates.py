"""A CA of one's own and the files that it makes for hosts, for tests and benchmarks. (docs/security.md: the same with
openssl, for people.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.api.identity import host_uri

DAY = timedelta(days=1)
BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class CertificateAuthority:
    """A CA with a P-256 key that exists in this process only.

    Attributes:
        certificate: its own, PEM.
    """

    def __init__(self, name: str = "Hostlane test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = _builder(self._name, self._name, self._key.public_key(), now - DAY, now + 3650 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        *uris: str,
        start: datetime | None = None,
        end: datetime | None = None,
        usages: Sequence[x509.ObjectIdentifier] = BOTH_ENDS,
    ) -> tuple[bytes, bytes]:
        """A certificate that names those URIs, valid for a day unless told otherwise, and its key; both PEM."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
        builder = _builder(subject, self._name, key.public_key(), start or now - DAY / 24, end or now + DAY)
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, host: str, *, mesh: str = "hostlane") -> dict[str, str]:
        """Files for a host, in a folder that exists; the section ``links.tls`` that names them."""
        return write(folder, *self.issue(host_uri(mesh, host)), self.certificate)


def write(folder: Path, certificate: bytes, key: bytes, ca: bytes) -> dict[str, str]:
    """As files, each replaced whole; the section ``links.tls`` that names them."""
    section = {}
    for name, content in (("key", key), ("certificate", certificate), ("ca", ca)):
        fresh, path = folder / f"{name}.new", folder / f"{name}.pem"
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(path)
        section[name] = str(path)
    return section


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), start, end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
