from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.check.readers.clock import certificate, synchronised
from proxy.check.report import Unchecked
from tests.check.ground import check, findings, seen

HOUR = timedelta(hours=1)


def issue(file: Path, begins: datetime, life: timedelta) -> None:
    """A certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host-a")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def test_what_is_no_certificate_and_has_no_end() -> None:
    assert certificate("/dev/zero") == Unchecked("/dev/zero", "not a certificate in PEM form")


@pytest.mark.netns
@pytest.mark.parametrize(
    ("begins", "life", "finding", "level"),
    [
        (HOUR, 24 * HOUR, "clock-behind", "wrong"),
        (-3 * HOUR, 2 * HOUR, "expired-certificate", "wrong"),
        (-9 * HOUR, 10 * HOUR, "late-renewal", "note"),
    ],
)
def test_a_certificate_and_the_clock(
    tmp_path: Path, ground_prefix: list[str], begins: timedelta, life: timedelta, finding: str, level: str
) -> None:
    file = tmp_path / "host.pem"
    issue(file, datetime.now(UTC) + begins, life)
    found = findings(check(ground_prefix, certificates=[file]))[finding]
    assert (found.level, found.where) == (level, str(file))


@pytest.mark.netns
def test_a_certificate_in_its_prime(tmp_path: Path, ground_prefix: list[str]) -> None:
    file = tmp_path / "host.pem"
    issue(file, datetime.now(UTC) - HOUR, 24 * HOUR)
    assert f"{file} is valid, for another 23 h" in seen(check(ground_prefix, certificates=[file]))


def test_the_first_of_a_file(tmp_path: Path) -> None:
    """The intermediates that follow have lives of their own."""
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    issue(one, datetime(2030, 1, 1, tzinfo=UTC), HOUR)
    issue(two, datetime(2040, 1, 1, tzinfo=UTC), HOUR)
    one.write_bytes(one.read_bytes() + two.read_bytes())
    found = certificate(str(one))
    assert not isinstance(found, Unchecked)
    assert found.not_before == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert found.not_after - found.not_before == 3600


def test_no_certificate(tmp_path: Path) -> None:
    missing, other = tmp_path / "missing.pem", tmp_path / "other.pem"
    other.write_text("hello")
    assert certificate(str(missing)) == Unchecked(str(missing), "there is no such file here")
    assert certificate(str(other)) == Unchecked(str(other), "not a certificate in PEM form")


def test_synchronised() -> None:
    assert isinstance(synchronised(), bool)
