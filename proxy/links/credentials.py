"""A host's certificate, key and CA bundle: read from their files, checked, and made into TLS contexts.

Each file is read once, and what was checked is what is used: it does not matter if a file changes in between.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.api.certificates import refuse_no_ca
from control.api.identity import UNREADABLE, host_uri, one_uri, serial_of, uris
from control.base.reading.units import show
from control.base.wholefile import read_file
from proxy.config.schema import TlsFiles
from proxy.errors import ConfigError
from proxy.links.revoked import RevokedSerials
from proxy.links.tlswire import NOT_OURS, TlsWire, reason_of

MAX_FILE_BYTES = 1 << 20
"""Largest file that is read: hundreds of CA certificates fit."""

HANDSHAKE_TURNS = 2
"""In which each side says what it has to say in TLS 1.3: the dialler begins and ends."""
INTERMEDIATE = 2
"""OpenSSL's verification error (x509_vfy.h) for a chain whose last certificate is trusted and was issued by another."""

T = TypeVar("T")


class RequiredIdentity(NamedTuple):
    """The mesh and the host that the certificate must name."""

    mesh: str
    host: str


@dataclass(frozen=True)
class Credentials:
    """What this host needs for a handshake. Immutable: a renewed certificate makes a new object.

    Attributes:
        dialling, accepting: TLS contexts for links.
        control: TLS context for requests to a control server, which checks its DNS name.
        not_before, not_after: validity of the certificate, seconds since 1970.
        serial: its serial number in hex.
        revoked: serial numbers of certificates that are refused when a peer shows one.
    """

    mesh: str
    dialling: ssl.SSLContext
    accepting: ssl.SSLContext
    control: ssl.SSLContext
    not_before: float
    not_after: float
    serial: str
    revoked: RevokedSerials = field(default_factory=RevokedSerials)


def read(files: TlsFiles, identity: RequiredIdentity, now: float, *, issued: bool = False) -> Credentials:
    """Read and check the credentials in these files.

    Args:
        now: seconds since 1970.
        issued: by the control plane, whose CAs come and go by themselves: a certificate whose CA has gone is renewed,
            and until then good for what needs no link. Otherwise it must come from a CA of the bundle.

    Raises ConfigError, a line ``links.tls.KEY: FILE: what is wrong`` for each problem.
    """
    problems: list[str] = []

    def load(name: str, path: str, parse: Callable[[bytes], T]) -> T | None:
        try:
            return parse(read_file(path, MAX_FILE_BYTES, "PEM text"))
        except ValueError as error:
            problems.append(f"links.tls.{name}: {path}: {error}")
            return None

    chain = load("certificate", files.certificate, _certificates)
    key = load("key", files.key, _private_key)
    authorities = load("ca", files.ca, _authorities)
    if chain is not None:
        said = f"links.tls.certificate: {files.certificate}: "
        problems += [said + text for text in _complaints(chain[0], identity, datetime.fromtimestamp(now, UTC))]
        if key is not None and _spki(key.public_key()) != _spki(chain[0].public_key()):
            problems.append(f"links.tls.key: {files.key}: is not the key of the certificate in {files.certificate}")
    if problems or chain is None or key is None or authorities is None:
        raise ConfigError(problems)
    try:
        found = assemble(identity.mesh, chain, key, authorities)
        if not issued and (complaint := _mistrusted(found, files.certificate)):
            raise ConfigError([f"links.tls.ca: {files.ca}: {complaint}"])
        return found
    except ssl.SSLError as error:
        raise ConfigError([f"links.tls: OpenSSL does not take these files: {reason_of(error)}"]) from None
    except OSError as error:
        raise ConfigError([f"links.tls: {error.strerror}"]) from None


def assemble(
    mesh: str, chain: list[x509.Certificate], key: PrivateKeyTypes, authorities: list[x509.Certificate]
) -> Credentials:
    """Make credentials of a checked certificate chain, key and CA bundle. Raises ssl.SSLError if OpenSSL refuses them
    (a key that is too weak, say), and OSError if the machine lacks something (descriptors, /proc).
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    der = b"".join(certificate.public_bytes(Encoding.DER) for certificate in authorities)
    control = _context(ssl.PROTOCOL_TLS_CLIENT, pem, der)
    control.hostname_checks_common_name = False
    control.check_hostname = True
    return Credentials(
        mesh,
        _context(ssl.PROTOCOL_TLS_CLIENT, pem, der),
        _context(ssl.PROTOCOL_TLS_SERVER, pem, der),
        control,
        chain[0].not_valid_before_utc.timestamp(),
        chain[0].not_valid_after_utc.timestamp(),
        serial_of(chain[0]),
    )


def _context(protocol: int, pem: bytes, authorities: bytes) -> ssl.SSLContext:
    """TLS 1.3 and nothing older, a certificate from both sides, and no way to resume a session: links live for days,
    and a ticket would outlive the certificate that it was given for.
    """
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.check_hostname = False  # the URI is the identity (control.api.identity), whatever the address
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authorities)
    # The ssl module takes only a path. This file is in memory: the key is never written to a disk.
    fd = os.memfd_create("hostlane")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def _certificates(content: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(content)
        for each in found:  # the library parses these only on access, which raises if they are bad
            _ = each.extensions, each.public_key(), each.not_valid_before_utc, each.not_valid_after_utc
    except (*UNREADABLE, UnsupportedAlgorithm):
        raise ValueError("found no readable certificate; allowed: PEM certificates") from None
    return found


def _authorities(content: bytes) -> list[x509.Certificate]:
    found = _certificates(content)
    refuse_no_ca(found)
    return found


def _mistrusted(own: Credentials, file: str) -> str:
    """What a peer with the same CA bundle would have against this host's certificate, which is in `file`; empty if
    nothing: OpenSSL is asked, by a handshake of the host with itself.
    """
    dialler, acceptor = TlsWire(own.dialling, server_side=False), TlsWire(own.accepting, server_side=True)
    for _ in range(HANDSHAKE_TURNS):
        for one, other in ((dialler, acceptor), (acceptor, dialler)):
            try:
                one.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                if error.verify_code in NOT_OURS:
                    wanted = "that CA, and those of the peers"
                    return f"found no CA that issued the certificate in {file}; allowed: {wanted}"
                if error.verify_code == INTERMEDIATE:
                    return "found an intermediate CA without its root; allowed: CAs up to a root"
                return f"does not verify the certificate in {file}: {error.verify_message}"
            other.incoming.write(one.outgoing.read())
    return ""


def _private_key(content: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        raise ValueError("found an encrypted key; allowed: one without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("found no readable private key; allowed: a PEM private key") from None


def _complaints(certificate: x509.Certificate, identity: RequiredIdentity, now: datetime) -> Iterator[str]:
    """What is wrong with this host's certificate: better said here than by the peers that refuse it."""
    if now > certificate.not_valid_after_utc:
        yield f"expired on {when(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        yield f"not valid before {when(certificate.not_valid_before_utc)}"
    allowed = host_uri(*identity)
    try:
        if (found := one_uri(uris(certificate), allowed)) != allowed:
            yield f"found the name {show(found)}; allowed: {allowed}"
    except ValueError as error:
        yield str(error)
    usages = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    try:
        if not usages <= set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value):
            yield "found an extendedKeyUsage without both serverAuth and clientAuth; allowed: both, or none at all"
    except x509.ExtensionNotFound:
        pass


def when(moment: datetime) -> str:
    """A moment as errors and logs write it: ``2026-01-31 12:00 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
