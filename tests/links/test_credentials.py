from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.api.identity import host_uri
from proxy.config.schema import TlsFiles
from proxy.demo.certificates import CertificateAuthority, write
from proxy.errors import ConfigError
from proxy.links.credentials import MAX_FILE_BYTES, RequiredIdentity, read
from tests.tools.privileges import modes_count

CA = CertificateAuthority()
ME = RequiredIdentity("m", "host-a")
URI = host_uri(*ME)
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def files(folder: Path, *uris: str, ca: bytes | None = None, **how: Any) -> TlsFiles:
    """Good ones unless the test wants others."""
    return TlsFiles(**write(folder, *CA.issue(*(uris or [URI]), **how), CA.certificate if ca is None else ca))


def problems(these: TlsFiles, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(these, ME, time.time())
    assert all(line.isprintable() for line in caught.value.problems)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def encoded(key: Any, how: Any = None) -> bytes:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how or NoEncryption())
    return content


def test_good_files(tmp_path: Path) -> None:
    found = read(files(tmp_path), ME, time.time())
    assert found.mesh == "m"
    assert found.not_after - found.not_before == pytest.approx(25 * 3600, abs=2)
    for context in (found.dialling, found.accepting):
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert not context.check_hostname
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert len(context.get_ca_certs()) == 1
    assert found.accepting.num_tickets == 0


def test_a_bundle_of_several_cas_and_text_between_them(tmp_path: Path) -> None:
    both = (
        "# the old one: für später\n".encode() + CA.certificate + b"# new\n" + CertificateAuthority("other").certificate
    )
    found = read(files(tmp_path, ca=both), ME, time.time())
    assert len(found.accepting.get_ca_certs()) == 2


def test_a_key_of_another_kind_in_the_same_file_as_its_certificate(tmp_path: Path) -> None:
    these = files(tmp_path)
    combined = tmp_path / "both.pem"
    combined.write_bytes(Path(these.key).read_bytes() + Path(these.certificate).read_bytes())
    read(TlsFiles(certificate=str(combined), key=str(combined), ca=these.ca), ME, time.time())


def test_the_key_stays_off_the_disk(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    read(files(tmp_path), ME, time.time())
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "found no readable"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "found no readable"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "found no readable"),
        (b"\xff" * 100, "found no readable"),
        (b"#" * (MAX_FILE_BYTES + 1), "found more than 1 MiB"),
    ],
    ids=["missing", "empty", "certificate", "key", "binary", "large"],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    these = files(tmp_path)
    path = tmp_path / f"{name}.pem"
    path.unlink() if content is None else path.write_bytes(content)
    (line,) = problems(these, tmp_path)
    assert line.startswith(f"links.tls.{name}: {name}.pem: {said}")


def test_a_directory(tmp_path: Path) -> None:
    these = files(tmp_path)
    odd = TlsFiles(certificate=these.certificate, key=these.key, ca=str(tmp_path))
    (line,) = problems(odd, tmp_path)
    assert line.endswith(": is a directory")


def test_a_key_that_may_not_be_read(tmp_path: Path) -> None:
    these = files(tmp_path)
    Path(these.key).chmod(0)
    with modes_count():
        assert problems(these, tmp_path) == ["links.tls.key: key.pem: permission denied"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another host": ({"uris": [host_uri("m", "host-b")]}, f'found the name "spiffe://m/host/host-b"; allowed: {URI}'),
    "another mesh": ({"uris": [host_uri("x", "host-a")]}, f'found the name "spiffe://x/host/host-a"; allowed: {URI}'),
    "two names": ({"uris": [URI, URI]}, f"found 2 URI names; allowed: exactly one, {URI}"),
    "expired": ({"start": NOW - 2 * DAY, "end": NOW - DAY}, f"expired on {NOW - DAY:%Y-%m-%d %H:%M} UTC"),
    "not yet valid": ({"start": NOW + DAY, "end": NOW + 2 * DAY}, f"not valid before {NOW + DAY:%Y-%m-%d %H:%M} UTC"),
    "servers only": (
        {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]},
        "found an extendedKeyUsage without both serverAuth and clientAuth; allowed: both, or none at all",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_certificates_that_the_peers_would_refuse(tmp_path: Path, case: str) -> None:
    how, said = WRONG[case]
    uris = how.pop("uris", [URI]) if "uris" in (how := dict(how)) else [URI]
    assert problems(files(tmp_path, *uris, **how), tmp_path) == [f"links.tls.certificate: certificate.pem: {said}"]


def test_without_a_name_and_without_usages(tmp_path: Path) -> None:
    certificate, key = CA.issue(usages=())
    these = TlsFiles(**write(tmp_path, certificate, key, CA.certificate))
    (line,) = problems(these, tmp_path)
    assert line.endswith(f"found 0 URI names; allowed: exactly one, {URI}")


def test_a_key_that_does_not_fit(tmp_path: Path) -> None:
    these = files(tmp_path)
    for other in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        Path(these.key).write_bytes(encoded(other))
        assert problems(these, tmp_path) == [
            "links.tls.key: key.pem: is not the key of the certificate in certificate.pem"
        ]


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path) -> None:
    these = files(tmp_path)
    Path(these.key).write_bytes(encoded(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x")))
    assert problems(these, tmp_path) == [
        "links.tls.key: key.pem: found an encrypted key; allowed: one without a passphrase"
    ]


def test_everything_at_once(tmp_path: Path) -> None:
    these = files(tmp_path, host_uri("m", "host-b"), start=NOW - 2 * DAY, end=NOW - DAY)
    Path(these.key).unlink()
    Path(these.ca).write_text("junk")
    assert [re.sub(r":.*", "", line) for line in problems(these, tmp_path)] == [
        "links.tls.key", "links.tls.ca", "links.tls.certificate", "links.tls.certificate",
    ]  # fmt: skip


def no_ca(**how: Any) -> bytes:
    return CA.issue(URI, **how)[0]


def root(
    *,
    ca: bool | None = None,
    signs: bool | None = None,
    path: str = "odd root",
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """A self-signed certificate with those extensions (None: without)."""
    key, name = (
        key or ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path)]),
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if signs is not None:
        usage = x509.KeyUsage(True, False, False, False, False, signs, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


NO_CAS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a host's": (no_ca, "of \"CN=host\", which does not say that it is a CA (basicConstraints)"),
    "behind a CA": (lambda: CA.certificate + no_ca(), 'of "CN=host", which does not say that it is'),
    "self-signed, no CA": (lambda: root(ca=False), 'of "CN=odd root", which is not a CA'),
    "self-signed, says nothing": (root, 'of "CN=odd root", which does not say that it is'),
    "may not sign": (lambda: root(ca=True, signs=False), 'of "CN=odd root", whose keyUsage lets it sign no'),
}


@pytest.mark.failure("34")
@pytest.mark.parametrize("case", NO_CAS)
def test_a_ca_bundle_holds_cas(tmp_path: Path, case: str) -> None:
    make, said = NO_CAS[case]
    (line,) = problems(files(tmp_path, ca=make()), tmp_path)
    assert line.startswith(f"links.tls.ca: ca.pem: found the certificate {said}")
    assert line.endswith("; allowed: CA certificates")


@pytest.mark.failure("34")
@pytest.mark.parametrize("name", ["other", "Hostlane test CA"])
def test_a_ca_that_did_not_issue_the_certificate(tmp_path: Path, name: str) -> None:
    """Also if it has the name of the one that did."""
    these = files(tmp_path, ca=CertificateAuthority(name).certificate + root(ca=True, signs=True))
    assert problems(these, tmp_path) == [
        "links.tls.ca: ca.pem: found no CA that issued the certificate in certificate.pem; "
        "allowed: that CA, and those of the peers"
    ]
    # What the control plane has issued is for the control plane to renew.
    assert read(these, ME, time.time(), issued=True).mesh == "m"


class Chain:
    """A root, an intermediate CA, and a host's certificate of that."""

    def __init__(self, until: datetime = NOW + DAY) -> None:
        self.keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in ("top", "middle", "host")]
        self.pem = []
        for place, issuer in ((0, 0), (1, 0), (2, 1)):
            builder = x509.CertificateBuilder(
                names[issuer], names[place], self.keys[place].public_key(), x509.random_serial_number(), NOW - 2 * DAY,
                until if place == 0 else NOW + DAY,
            )  # fmt: skip
            builder = builder.add_extension(x509.BasicConstraints(ca=place < 2, path_length=None), critical=True)
            if place == 2:
                alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)])
                builder = builder.add_extension(alternative, critical=False)
            self.pem.append(builder.sign(self.keys[issuer], hashes.SHA256()).public_bytes(Encoding.PEM))

    def files(self, folder: Path, shown: Sequence[int], trusted: Sequence[int]) -> TlsFiles:
        certificate, ca = (b"".join(self.pem[place] for place in places) for places in (shown, trusted))
        return TlsFiles(**write(folder, certificate, encoded(self.keys[2]), ca))


def test_intermediate_cas(tmp_path: Path) -> None:
    chain = Chain()
    for shown, trusted in (([2, 1], [0]), ([2], [1, 0]), ([2, 1], [1, 0])):
        assert read(chain.files(tmp_path, shown, trusted), ME, time.time()).mesh == "m"
    assert problems(chain.files(tmp_path, [2], [0]), tmp_path) == [
        "links.tls.ca: ca.pem: found no CA that issued the certificate in certificate.pem; "
        "allowed: that CA, and those of the peers"
    ]
    assert problems(chain.files(tmp_path, [2], [1]), tmp_path) == [
        "links.tls.ca: ca.pem: found an intermediate CA without its root; allowed: CAs up to a root"
    ]


@pytest.mark.parametrize(("shown", "trusted"), [([2, 1], [0]), ([2], [1, 0])])
def test_a_root_that_says_in_its_key_usage_alone_that_it_signs(
    tmp_path: Path, shown: Sequence[int], trusted: Sequence[int]
) -> None:
    """OpenSSL takes it for a CA's, and so do peers."""
    chain = Chain()
    chain.pem[0] = root(signs=True, path="top", key=chain.keys[0])
    assert read(chain.files(tmp_path, shown, trusted), ME, time.time()).mesh == "m"


def test_a_ca_that_has_expired(tmp_path: Path) -> None:
    assert problems(Chain(NOW - DAY).files(tmp_path, [2, 1], [0]), tmp_path) == [
        "links.tls.ca: ca.pem: does not verify the certificate in certificate.pem: certificate has expired"
    ]
