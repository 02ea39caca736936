"""TLS of a control server: its context, from PEM texts, and who a client's certificate says it is."""

from __future__ import annotations

import os
import ssl

from cryptography import x509

from control.api import identity
from control.ca import root as ca
from control.ca.issuing import ServerCertificate
from control.server.routes import Caller

__all__ = ["caller_of", "client_context", "server_context"]

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h); Python's ssl module has no name for it."""


def server_context(own: ServerCertificate) -> ssl.SSLContext:
    """TLS 1.3 with a certificate asked of clients and verified if there is one: who needs to show one is up to the
    route, because a host that joins has none. Whether it is valid now is not asked here: a host whose certificate has
    expired is told so (`MapWatchers.refuses`), instead of being cut off without a word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=own.bundle)
    # A resumed session would carry an identity past a change of the CAs; long connections need none.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load(context, own)
    return context


def client_context(own: ServerCertificate) -> ssl.SSLContext:
    """The same certificate, shown to other control servers, which must be ones by theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=own.bundle)
    _load(context, own)
    return context


def _load(context: ssl.SSLContext, own: ServerCertificate) -> None:
    # The ssl module takes a file only. This one has no name, and never comes near a disk.
    fd = os.memfd_create("hostlane")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(f"{own.certificate}\n{own.key}".encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def caller_of(certificate: bytes | None, address: str, mesh: str) -> Caller:
    """Who a verified certificate (DER) is for. One that is for no host and no control server of this mesh counts as
    none.
    """
    if not certificate:
        return Caller(address)
    host = server = None
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        server = identity.server_of(parsed, mesh)
        if server is None:
            host = identity.host_of(parsed, mesh)
    except identity.UNREADABLE:
        return Caller(address)
    began, expires = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    serial, issuer = identity.serial_of(parsed), ca.issuer_of(parsed)
    return Caller(address, host, serial, expires, issuer=issuer, began=began, server=server)
