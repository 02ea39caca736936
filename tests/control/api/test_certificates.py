from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control.api import certificates
from control.ca import root as ca

NOW = 1_800_000_000.0
ROOT = ca.new_root("hostlane", NOW)


def issued(names: ca.CertificateNames) -> x509.Certificate:
    key = certificates.new_key()
    return certificates.read_certificate(ca.issue(ROOT, key.public_key(), names, NOW, 86400.0).certificate)


def test_what_is_no_root() -> None:
    assert certificates.read_roots(certificates.pem(ROOT.certificate))[0] == ROOT.certificate
    for wrong in ("", "junk", "\ud800", certificates.pem(issued(ca.CertificateNames.host("m", "a")))):
        with pytest.raises(ValueError, match="found no CA certificate"):
            certificates.read_roots(wrong)


def test_who_has_issued_a_certificate() -> None:
    leaf = issued(ca.CertificateNames.host("m", "a"))
    assert certificates.issued_by(leaf, ROOT.certificate)
    assert not certificates.issued_by(leaf, ca.new_root("hostlane", NOW).certificate)
    with pytest.raises(ValueError, match="found no readable certificate"):
        certificates.read_certificate("junk")


def test_a_request_and_a_key_are_read_as_they_were_written() -> None:
    key = certificates.new_key()
    assert ca.requested_key_untrusted(certificates.request(key)) == key.public_key()
    read = load_pem_private_key(certificates.key_pem(key).encode(), None)
    assert read.public_key() == key.public_key()


def test_a_fingerprint_is_that_of_the_whole_certificate() -> None:
    one, other = (ca.new_root("hostlane", time.time(), ROOT.key) for _ in range(2))
    assert certificates.fingerprint(one.certificate) != certificates.fingerprint(other.certificate)
    assert len(certificates.fingerprint(one.certificate)) == 64
