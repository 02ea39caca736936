from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from control.api import certificates
from control.api.identity import BACKDATED, serial_of, uris
from control.ca import root as ca

NOW = 1_800_000_000.0
DAY = 86400.0
ROOT = ca.new_root("hostlane", NOW)


def csr(key: object, *names: x509.GeneralName, subject: str = "root") -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())  # type: ignore[arg-type]


def text(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(Encoding.PEM).decode()


def issued(names: ca.CertificateNames, lifetime: float = DAY, root: ca.RootCa = ROOT) -> x509.Certificate:
    leaf = ca.issue(root, certificates.new_key().public_key(), names, NOW, lifetime)
    found = x509.load_pem_x509_certificate(leaf.certificate.encode())
    assert (leaf.serial, leaf.not_after) == (serial_of(found), found.not_valid_after_utc.timestamp())
    return found


def test_a_hosts_certificate() -> None:
    found = issued(ca.CertificateNames.host("hostlane", "host-a"))
    found.verify_directly_issued_by(ROOT.certificate)
    assert found.not_valid_before_utc.timestamp() == NOW - BACKDATED
    assert found.not_valid_after_utc.timestamp() == NOW + DAY
    extensions = {each.oid._name: each.value for each in found.extensions}
    assert set(extensions["extendedKeyUsage"]) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions["basicConstraints"].ca
    assert not extensions["keyUsage"].key_cert_sign
    assert [*extensions["subjectAltName"]] == [x509.UniformResourceIdentifier("spiffe://hostlane/host/host-a")]


def test_only_a_control_server_has_a_dns_name() -> None:
    found = issued(ca.CertificateNames.control("hostlane", "one"))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["control.hostlane.internal"]
    assert uris(found) == ["spiffe://hostlane/control/one"]


def test_serials_are_random() -> None:
    serials = {issued(ca.CertificateNames.host("m", "a")).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert min(serials) > 1 << 100


def test_nothing_outlives_the_root() -> None:
    end = ROOT.certificate.not_valid_after_utc.timestamp()
    leaf = ca.issue(ROOT, certificates.new_key().public_key(), ca.CertificateNames.host("m", "a"), end - 60, DAY)
    assert leaf.not_after == end


def test_roots_differ_in_everything() -> None:
    other = ca.new_root("hostlane", NOW)
    assert ROOT.id != other.id
    assert ROOT.id == ca.key_id(ROOT.key)
    assert ROOT.certificate.subject != other.certificate.subject
    assert certificates.fingerprint(ROOT.certificate) != certificates.fingerprint(other.certificate)
    assert ca.mesh_of(ROOT.certificate) == "hostlane"


@pytest.mark.parametrize("kind", [certificates.new_key, ed25519.Ed25519PrivateKey.generate])
def test_openssl_agrees(kind: Callable[[], certificates.Key], tmp_path: Path) -> None:
    """A handshake between a host and a control server, with the strictest flags that Python has."""
    now = time.time()
    root = ca.new_root("m", now, kind())
    one = context(ssl.PROTOCOL_TLS_CLIENT, root, ca.CertificateNames.host("m", "host-a"), now, tmp_path)
    other = context(ssl.PROTOCOL_TLS_SERVER, root, ca.CertificateNames.control("m", "one"), now, tmp_path)
    shake_hands(one, other, "control.m.internal")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(one, other, "host-a")
    posing = context(ssl.PROTOCOL_TLS_SERVER, root, ca.CertificateNames.host("m", "control.m.internal"), now, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(one, posing, "control.m.internal")


def context(protocol: int, root: ca.RootCa, names: ca.CertificateNames, now: float, folder: Path) -> ssl.SSLContext:
    key = certificates.new_key()
    leaf = ca.issue(root, key.public_key(), names, now, 60)
    made = ssl.SSLContext(protocol)
    made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=certificates.pem(root.certificate))
    (folder / "both.pem").write_text(certificates.key_pem(key) + leaf.certificate)
    made.load_cert_chain(folder / "both.pem")
    return made


def shake_hands(one: ssl.SSLContext, other: ssl.SSLContext, name: str) -> None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        one.wrap_bio(back, there, server_hostname=name),
        other.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(10):
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends


def test_of_a_request_only_the_key_counts() -> None:
    key = certificates.new_key()
    asked = csr(key, x509.DNSName("control.hostlane.internal"), x509.UniformResourceIdentifier("spiffe://x/host/root"))
    public = ca.requested_key_untrusted(text(asked))
    leaf = ca.issue(ROOT, public, ca.CertificateNames.host("hostlane", "host-a"), NOW, DAY)
    found = x509.load_pem_x509_certificate(leaf.certificate.encode())
    assert found.public_key() == key.public_key()
    assert uris(found) == ["spiffe://hostlane/host/host-a"]
    assert found.subject.rfc4514_string() == "CN=host/host-a"


@pytest.mark.parametrize(
    "key",
    [certificates.new_key(), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_keys_that_are_taken(key: certificates.Key) -> None:
    assert ca.requested_key_untrusted(text(csr(key))) == key.public_key()


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())], ids=["RSA", "secp256k1"]
)
def test_keys_that_are_not(key: object) -> None:
    with pytest.raises(ValueError, match="found a key of another kind; allowed: an EC key"):
        ca.requested_key_untrusted(text(csr(key)))


def test_who_asks_must_have_the_key() -> None:
    """Another key's signature under a request, as somebody would make it who wants a stranger's key certified."""
    mine, theirs = csr(certificates.new_key()), csr(certificates.new_key())
    der = mine.public_bytes(Encoding.DER)
    forged = der.replace(mine.signature, theirs.signature)
    if len(mine.signature) != len(theirs.signature):
        forged = der[:-1] + bytes([der[-1] ^ 1])
    request = x509.load_der_x509_csr(forged)
    with pytest.raises(ValueError, match="its signature is not made with its key"):
        ca.requested_key_untrusted(text(request))


@pytest.mark.parametrize(
    "raw", ["", "junk", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_no_request(raw: str) -> None:
    with pytest.raises(ValueError, match="allowed: a certificate request"):
        ca.requested_key_untrusted(raw)


def test_a_long_one() -> None:
    with pytest.raises(ValueError, match="found 100000 characters"):
        ca.requested_key_untrusted("x" * 100_000)


GOOD = csr(certificates.new_key()).public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_request_with_any_byte_changed(where: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[where] = value
    body = base64.encodebytes(bytes(changed)).decode()
    try:
        ca.requested_key_untrusted(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert changed == GOOD


@given(st.text(max_size=300))
def test_any_text(raw: str) -> None:
    with pytest.raises(ValueError) as caught:
        ca.requested_key_untrusted(raw)
    assert "\n" not in str(caught.value)


def test_private_keys() -> None:
    key = certificates.new_key()
    assert ca.key_id(ca.read_key(certificates.key_pem(key).encode())) == ca.key_id(key)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for raw, why in ((b"junk", "no readable private key"), (secret, "encrypted key")):
        with pytest.raises(ValueError, match=why):
            ca.read_key(raw)
    other = rsa.generate_private_key(65537, 2048)
    with pytest.raises(ValueError, match="another kind"):
        ca.read_key(certificates.key_pem(other).encode())  # type: ignore[arg-type]
