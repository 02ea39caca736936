"""Of certificates as the CA makes them; tests/links/test_identity.py has those that only look like it."""

from __future__ import annotations

import pytest
from cryptography import x509

from control.api import certificates
from control.api.identity import control_uri, host_of, host_uri, issued_at, one_uri, serial_of, uris
from control.ca import root as ca

NOW = 1_800_000_000.75


def certificate(names: ca.CertificateNames) -> x509.Certificate:
    leaf = ca.issue(ca.new_root("m", NOW), certificates.new_key().public_key(), names, NOW, 3600)
    return x509.load_pem_x509_certificate(leaf.certificate.encode())


def test_a_host() -> None:
    found = certificate(ca.CertificateNames.host("m", "host-a"))
    assert uris(found) == [host_uri("m", "host-a")] == ["spiffe://m/host/host-a"]
    assert host_of(found, "m") == "host-a"
    assert int(serial_of(found), 16) == found.serial_number
    assert issued_at(found) == 1_800_000_000


def test_a_control_server_is_no_host() -> None:
    found = certificate(ca.CertificateNames.control("m", "one"))
    assert uris(found) == [control_uri("m", "one")]
    with pytest.raises(ValueError, match='found "spiffe://m/control/one"; allowed: spiffe://m/host/<name>'):
        host_of(found, "m")


def test_another_mesh() -> None:
    with pytest.raises(ValueError, match="allowed: spiffe://other/host/<name>"):
        host_of(certificate(ca.CertificateNames.host("m", "host-a")), "other")


def test_exactly_one() -> None:
    with pytest.raises(ValueError, match="found 2 URI names; allowed: exactly one, x"):
        one_uri(["a", "b"], "x")
