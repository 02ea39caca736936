from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.api.messages import CLOCKS_DIFFER
from proxy.check.context import DiagnosisContext
from proxy.check.readers.clock import certificate, read, synchronised
from proxy.check.report import Finding, Unchecked
from proxy.check.rules.clock import judge
from tests.check.ground import check, findings, seen
from tests.mesh.plane import Plane
from tests.pump.agents import mesh
from tests.pump.rig import until

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


@pytest.mark.failure("30")
@pytest.mark.parametrize(("ahead", "level"), [(13 * 3600.0, "wrong"), (-100.0, "note")])
async def test_what_the_running_proxy_knows(ahead: float, level: str) -> None:
    plane = Plane()
    plane.lease, plane.now = 0.1, time.time() - ahead
    async with mesh(mtls=True) as hosts:
        control = {"servers": ["10.0.0.9:7601"], "state_dir": str(hosts.folder / "state")}
        agent = await hosts.start("host-a", plane, control=control)
        context = cast(DiagnosisContext, SimpleNamespace(config=agent.config, certificates=()))

        async def told() -> dict[str, str]:
            lines = judge(await trio.to_thread.run_sync(read, context))
            return {each.name: each.level for each in lines if isinstance(each, Finding)}

        registration = agent.view.follower.registration if agent.view.follower is not None else None
        assert registration is not None
        await until(lambda: registration.clock_ahead is not None, "the control plane has said what time it is")
        agent.view.renewal_error = lambda: "no control server answers"
        found = await told()
        assert (found.get("clocks-differ"), found.get("renewal-fails")) == (level, "wrong")
        agent.view.renewal_error, plane.now = lambda: None, time.time()
        await until(lambda: abs(registration.clock_ahead or 0.0) < CLOCKS_DIFFER, "the clock was set")
        assert not {"clocks-differ", "renewal-fails"} & {*await told()}


def test_synchronised() -> None:
    assert isinstance(synchronised(), bool)
