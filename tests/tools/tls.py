"""Credentials for tests, of CAs that exist in the test only; also such as no host would take for itself."""

from __future__ import annotations

from dataclasses import replace
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control.api.identity import host_uri
from proxy.demo.certificates import CertificateAuthority
from proxy.links.credentials import Credentials, assemble

MESH = "hostlane"


def credentials(
    authority: CertificateAuthority, *uris: str, trusts: CertificateAuthority | None = None, **how: Any
) -> Credentials:
    """With a certificate that names those URIs.

    Args:
        trusts: the CA of its bundle, if that is not the one that signed its certificate.
        how: as `CertificateAuthority.issue` takes it.
    """
    certificate, key = authority.issue(*uris, **how)
    bundle = (trusts or authority).certificate
    load = x509.load_pem_x509_certificates
    return assemble(MESH, load(certificate), load_pem_private_key(key, None), load(bundle))


def of_host(authority: CertificateAuthority, name: str, **how: Any) -> Credentials:
    """As the control plane would issue them."""
    return credentials(authority, host_uri(MESH, name), **how)


def without_certificate(authority: CertificateAuthority) -> Credentials:
    """Of a dialler that verifies its peer and shows nothing itself."""
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.certificate.decode())
    return replace(of_host(authority, "nobody"), dialling=context)
