from __future__ import annotations

import ssl
import time

from control.api import certificates
from control.api.identity import BACKDATED
from control.ca import root as ca
from control.ca.issuing import ServerCertificate
from control.server.credentials import caller_of, client_context, server_context
from control.server.routes import Caller


def der(names: ca.CertificateNames, root: ca.RootCa) -> tuple[bytes, ca.IssuedCertificate]:
    leaf = ca.issue(root, certificates.new_key().public_key(), names, time.time(), 3600.0)
    return ssl.PEM_cert_to_DER_cert(leaf.certificate), leaf


def test_who_a_certificate_is_for() -> None:
    root = ca.new_root("hostlane", time.time())
    raw, leaf = der(ca.CertificateNames.host("hostlane", "host-a"), root)
    issuer, began = ca.issuer_of(root.certificate), leaf.not_after - 3600.0 - BACKDATED
    expected = Caller("10.0.0.1", "host-a", leaf.serial, leaf.not_after, issuer=issuer, began=began)
    assert caller_of(raw, "10.0.0.1", "hostlane") == expected
    raw, leaf = der(ca.CertificateNames.control("hostlane", "control-1"), root)
    found = caller_of(raw, "10.0.0.1", "hostlane")
    assert (found.server, found.host, found.serial, found.admin) == ("control-1", None, leaf.serial, False)


def test_what_is_of_nobody_in_this_mesh_is_nobodys() -> None:
    root = ca.new_root("hostlane", time.time())
    for names in (ca.CertificateNames.host("other", "host-a"), ca.CertificateNames.control("other", "control-1")):
        assert caller_of(der(names, root)[0], "10.0.0.1", "hostlane") == Caller("10.0.0.1")
    assert caller_of(None, "10.0.0.1", "hostlane") == Caller("10.0.0.1")
    assert caller_of(b"junk", "10.0.0.1", "hostlane") == Caller("10.0.0.1")


def test_one_server_knows_another_by_its_certificate() -> None:
    root, key = ca.new_root("hostlane", time.time()), certificates.new_key()
    leaf = ca.issue(root, key.public_key(), ca.CertificateNames.control("hostlane", "control-1"), time.time(), 3600.0)
    bundle = certificates.pem(root.certificate)
    own = ServerCertificate(leaf.certificate, certificates.key_pem(key), bundle, time.time(), leaf.not_after)
    context = client_context(own)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_the_context_asks_for_a_certificate_and_does_not_insist() -> None:
    root, key = ca.new_root("hostlane", time.time()), certificates.new_key()
    leaf = ca.issue(root, key.public_key(), ca.CertificateNames.control("hostlane", "control-1"), time.time(), 3600.0)
    bundle = certificates.pem(root.certificate)
    own = ServerCertificate(leaf.certificate, certificates.key_pem(key), bundle, time.time(), leaf.not_after)
    context = server_context(own)
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
