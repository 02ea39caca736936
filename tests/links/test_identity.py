from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from control.api.identity import host_uri, uris
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason, HandshakeError
from proxy.links.identity import peer_untrusted

CA = CertificateAuthority()


def der(*names: str) -> bytes:
    return x509.load_pem_x509_certificate(CA.issue(*names)[0]).public_bytes(Encoding.DER)


def refused(certificate: bytes, mesh: str = "m") -> str:
    with pytest.raises(HandshakeError) as caught:
        peer_untrusted(certificate, mesh)
    assert caught.value.reason is CloseReason.WRONG_HOST
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("mesh", "host"), [("m", "a"), ("hostlane", "host-a"), ("mesh.example", "h.1-x")])
def test_a_host_is_named_by_its_uri(mesh: str, host: str) -> None:
    assert peer_untrusted(der(host_uri(mesh, host)), mesh).host == host


@pytest.mark.failure(11)
@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://m/host/",
        "spiffe://m/host/A",
        "spiffe://m/host/a/b",
        "spiffe://m/host/a?x=1",
        "spiffe://m/host/a#x",
        "spiffe://m/host/%61",
        "spiffe://m/service/a",
        "spiffe://m:80/host/a",
        "spiffe://user@m/host/a",
        "spiffe://m.evil/host/a",
        "SPIFFE://m/host/a",
        "https://m/host/a",
        "spiffe://m/host/a\x00",
        " spiffe://m/host/a",
        "spiffe://m/host/a ",
    ],
)
def test_nothing_that_only_looks_like_it(uri: str) -> None:
    assert refused(der(uri)).startswith("the peer's certificate names no host: found ")


def test_exactly_one() -> None:
    assert "found 0 URI names; allowed: exactly one, spiffe://m/host/<name>" in refused(der())
    assert "found 2 URI names" in refused(der("spiffe://m/host/a", "https://example"))
    assert "found 3 URI names" in refused(der(*["spiffe://m/host/a"] * 3))


def test_names_of_other_kinds_do_not_count() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    names = [x509.DNSName("a"), x509.RFC822Name("a@b"), x509.UniformResourceIdentifier("spiffe://m/host/b")]
    start, end = (x509.load_der_x509_certificate(der()).not_valid_before_utc for _ in range(2))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    assert uris(certificate) == ["spiffe://m/host/b"]


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    refused(data)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0), st.integers(0, 255))
def test_a_certificate_with_any_byte_changed(where: int, value: int) -> None:
    """Its signature has been verified before, so this is a CA that writes nonsense; still only one error may come."""
    certificate = bytearray(CERTIFICATE)
    certificate[where % len(certificate)] = value
    try:
        assert peer_untrusted(bytes(certificate), "m").host.isprintable()
    except HandshakeError as error:
        assert "\n" not in str(error)


CERTIFICATE = der("spiffe://m/host/some-host")
