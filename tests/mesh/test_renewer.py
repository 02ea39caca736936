from __future__ import annotations

import time
from collections.abc import AsyncIterator, Container, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from structlog.testing import capture_logs

from control.api import certificates
from control.api import client as clients
from control.api.client import Denied
from control.api.identity import BACKDATED, issued_at
from control.api.mesh import RenewRequest, RevokeRequest, TrustBundle
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config
from proxy.links.keyring import Keyring
from proxy.mesh import renewer as keepers
from proxy.mesh import schedule
from proxy.mesh.join import ensure
from proxy.mesh.renewer import CertificateRenewer
from proxy.mesh.statedir import StateDir
from tests.mesh.conftest import Mesh

pytestmark = pytest.mark.failure(12)

HOUR = 3600.0
Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "LOOK", 0.02)
    monkeypatch.setattr(keepers, "PAUSE", 0.02)
    monkeypatch.setattr(schedule, "PROMPT", 0.0)
    monkeypatch.setattr(clients, "DEADLINE", 1.0)


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


class Host:
    """A host that has joined; `later` is by how much its clock is ahead of the control server's."""

    def __init__(self, mesh: Mesh, config: Config) -> None:
        self.mesh, self.config = mesh, config
        self.keyring: Keyring = mesh.keyring(config)
        self.client = mesh.client_of(self.keyring)
        self.later = 0.0
        self.cut: list[str] = []
        self.renewer = CertificateRenewer(
            config, self.keyring, self.client, cut=self._cut, random=lambda: 0.0, now=lambda: time.time() + self.later
        )

    def _cut(self, serials: Container[str]) -> None:
        assert isinstance(serials, frozenset)
        self.cut += sorted(serials)

    @property
    def serial(self) -> str:
        return self.keyring.current.serial

    @property
    def certificate(self) -> x509.Certificate:
        assert self.config.control is not None
        files = StateDir(self.config.control.state_dir).files
        return certificates.read_certificate(Path(files.certificate).read_text())

    async def until_renewed(self, before: str) -> None:
        with trio.fail_after(30):
            while self.serial == before:
                await trio.sleep(0.01)


def listen(mesh: Mesh) -> TcpAddress:
    return TcpAddress("127.0.0.1", mesh.fixed_port)


async def joined(mesh: Mesh, name: str = "host-a") -> Host:
    config = mesh.host(name)
    await mesh.give_token(config)
    await ensure(config, lambda: 0.0)
    return Host(mesh, config)


@asynccontextmanager
async def kept(host: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(host.renewer.run)
        yield
        nursery.cancel_scope.cancel()
    await host.client.aclose()


async def trust(mesh: Mesh) -> TrustBundle:
    async with mesh.admin() as admin:
        found = (await admin.hosts()).trust
    assert found is not None
    return found


def said(logs: Logs, event: str) -> list[MutableMapping[str, Any]]:
    return [entry for entry in logs if event in entry["event"]]


async def until_said(logs: Logs, event: str) -> MutableMapping[str, Any]:
    with trio.fail_after(30):
        while not said(logs, event):
            await trio.sleep(0.01)
    return said(logs, event)[0]


async def test_it_renews_at_half_life_with_a_fresh_key(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        before, key = host.serial, host.certificate.public_key()
        current = host.keyring.current
        async with kept(host):
            host.later = 0.44 * (current.not_after - current.not_before - BACKDATED)
            for _ in range(5):
                await trio.sleep(0.02)
            assert host.serial == before
            host.later = 12 * HOUR
            await host.until_renewed(before)
            host.later = 0.0
        assert host.certificate.public_key() != key
    assert host.renewer.last_error is None


@pytest.mark.parametrize("ahead", [13 * HOUR, 23 * HOUR])
@pytest.mark.failure("30a")
async def test_a_clock_that_is_half_a_life_ahead_does_not_renew_for_ever(mesh: Mesh, logs: Logs, ahead: float) -> None:
    """The new certificate is as old by that clock as the one before; half of what is left of it passes first."""
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        before, host.later = host.serial, ahead
        async with kept(host):
            await host.until_renewed(before)
            before = host.serial
            for _ in range(10):
                await trio.sleep(0.02)
            assert host.serial == before
            host.later = ahead + 0.6 * (24 * HOUR - ahead)
            await host.until_renewed(before)


async def test_while_renewal_fails_the_old_one_stays(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
    before = host.serial
    host.later = 12 * HOUR
    async with kept(host):
        entry = await until_said(logs, "certificate not renewed, the old one stays in use")
        assert entry["good_until"].endswith(" UTC")
        assert "no control server answers" in entry["error"]
        assert host.serial == before
        assert host.renewer.last_error is not None
        assert host.renewer.failing == host.renewer.last_error
        async with mesh.serving(listen=listen(mesh)):
            await host.until_renewed(before)
            with trio.fail_after(30):
                while host.renewer.failing is not None:
                    await trio.sleep(0.01)
            host.later = 0.0
            assert len(said(logs, "certificate not renewed")) == 1


async def test_a_rotation_reaches_the_host(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        old = host.certificate
        async with kept(host), mesh.admin() as admin:
            await admin.rotate("add")
            host.renewer.trust(found := await trust(mesh))
            await until_said(logs, "new CA certificates in use")
            first, second = certificates.read_roots(found.bundle)
            assert certificates.issued_by(host.certificate, first)
            # Certificates know whole seconds, and one of the same second might be of the old CA.
            await admin.rotate("activate")
            host.renewer.trust(found := await trust(mesh))
            with trio.fail_after(30):
                while issued_at(host.certificate) < found.renew_before:
                    await trio.sleep(0.01)
            assert certificates.issued_by(host.certificate, second)
            assert host.certificate.serial_number != old.serial_number
            # The control server has a certificate of the new CA by now, too, and the host is heard there.
            await host.client.status()


async def test_a_bundle_that_is_junk_changes_nothing(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        async with kept(host):
            host.renewer.trust(TrustBundle(bundle="junk", revoked=("ab",)))
            await until_said(logs, "trust is of no use")
            assert "ab" in host.keyring.revoked
            await host.client.status()


async def test_a_disk_that_is_full_for_a_moment(mesh: Mesh, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        assert host.config.control is not None
        state, found = StateDir(host.config.control.state_dir), await trust(mesh)

        def full(self: StateDir, trust: TrustBundle) -> None:
            raise OSError(28, "No space left on device")

        async with kept(host):
            with monkeypatch.context() as patch:
                patch.setattr(StateDir, "save_trust", full)
                host.renewer.trust(found)
                await until_said(logs, "cannot be kept, trying on")
            with trio.fail_after(30):
                while state.trust() != found:
                    await trio.sleep(0.01)
    assert len([entry for entry in said(logs, "cannot be kept") if entry["log_level"] == "warning"]) == 1


async def test_revoked_certificates_end_links_at_once_and_stay_revoked(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        bundle = (await trust(mesh)).bundle
        async with kept(host):
            host.renewer.trust(TrustBundle(bundle=bundle, revoked=("ab", "cd")))
            assert host.cut == ["ab", "cd"]
            host.renewer.trust(TrustBundle(bundle=bundle, revoked=("ab", "cd", "ef")))
            assert host.cut == ["ab", "cd", "ef"]
            state = StateDir(host.config.control.state_dir)  # type: ignore[union-attr]
            with trio.fail_after(30):
                while (found := state.trust()) is None or len(found.revoked) < 3:
                    await trio.sleep(0.01)
    again = Host(mesh, host.config)
    async with kept(again):
        assert "ef" in again.keyring.revoked


async def test_a_stolen_certificate_after_revocation(mesh: Mesh, logs: Logs) -> None:
    """It gets nothing from the control plane; the honest host, which has the same one, joins again by a new token."""
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        thief = mesh.client_of(mesh.keyring(host.config))
        async with mesh.admin() as admin:
            done = await admin.revoke(RevokeRequest(host="host-a"))
        before = host.serial
        assert done.serials == (before,)
        async with thief:
            with trio.fail_after(30):
                while True:
                    with pytest.raises(Denied) as caught:
                        await thief.renew(RenewRequest(csr=certificates.request(certificates.new_key())))
                    if caught.value.status == 403:
                        break
            assert caught.value.code == "revoked"
        async with kept(host):
            host.renewer.trust(await trust(mesh))
            entry = await until_said(logs, "was revoked; only a new token helps")
            assert entry["log_level"] == "error"
            await mesh.give_token(host.config)
            await host.until_renewed(before)
            await host.client.status()


async def test_who_was_revoked_learns_it_from_any_refusal(mesh: Mesh, logs: Logs) -> None:
    """Its watch ends before it could be told."""
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        before = host.serial
        async with mesh.admin() as admin:
            await admin.revoke(RevokeRequest(host="host-a"))
        async with kept(host):
            with trio.fail_after(30):
                while True:
                    try:
                        await host.client.status()
                    except Denied:
                        break
            await until_said(logs, "was revoked; only a new token helps")
            await mesh.give_token(host.config)
            await host.until_renewed(before)
            await host.client.status()


async def test_who_was_revoked_and_not_told_learns_it_when_it_renews(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        async with mesh.admin() as admin:
            await admin.revoke(RevokeRequest(host="host-a"))
        host.later = 12 * HOUR
        async with kept(host):
            await until_said(logs, "only a new token helps")


async def test_an_expired_certificate_needs_a_new_token(mesh: Mesh, logs: Logs) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        before = host.serial
        host.later = 25 * HOUR
        async with kept(host):
            entry = await until_said(logs, "only a new token helps")
            assert "this host's certificate expired on " in entry["event"]
            assert "the token is not accepted" in entry["error"]
            # The old token is not tried again and again.
            for _ in range(5):
                await trio.sleep(0.02)
            assert len(said(logs, "join refused: token used")) == 1
            await mesh.give_token(host.config)
            await host.until_renewed(before)
            host.later = 0.0


@pytest.mark.failure("30a")
async def test_the_clock_jumps_and_the_certificate_is_renewed_then(mesh: Mesh, logs: Logs) -> None:
    """Whatever has failed before: the next try does not wait for its pause."""
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
    before = host.serial
    host.later = 12 * HOUR
    async with kept(host):
        await until_said(logs, "certificate not renewed, the old one stays in use")
        host.renewer._retry_at = float("inf")
        async with mesh.serving(listen=listen(mesh)):
            host.later = 13 * HOUR
            await host.until_renewed(before)
            host.later = 0.0
    assert [entry["seconds"] for entry in said(logs, "the wall clock has jumped")][:2] == [12 * HOUR, HOUR]


@pytest.mark.failure("30a")
@pytest.mark.parametrize(
    ("later", "words"), [(25 * HOUR, "certificate expired on "), (-25 * HOUR, "certificate is not valid before ")]
)
async def test_what_is_said_of_a_certificate_is_what_it_is(mesh: Mesh, logs: Logs, later: float, words: str) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        host.later = later
        async with kept(host):
            entry = await until_said(logs, "only a new token helps")
            assert words in entry["event"]
            assert "revoked" not in entry["event"]
            # Once the clock is right again, the certificate is as good as before.
            host.later = 0.0
            await host.client.status()


@pytest.mark.failure("30a")
@pytest.mark.parametrize(
    ("code", "words"),
    [("expired", "has expired, says the control plane's clock"), ("dropped", "is of a CA that is no longer in force")],
)
async def test_what_the_control_plane_refuses_for_is_said(mesh: Mesh, logs: Logs, code: str, words: str) -> None:
    async with mesh.serving(listen=listen(mesh)):
        host = await joined(mesh)
        before = host.serial
        async with kept(host):
            host.client.on_denied(Denied(code, "this certificate of host host-a counts no longer", 403))
            entry = await until_said(logs, "only a new token helps")
            assert words in entry["event"]
            await mesh.give_token(host.config)
            await host.until_renewed(before)


@pytest.mark.failure("30a")
async def test_on_a_full_disk_nothing_is_asked_for(mesh: Mesh, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a renewal nor a join; the token is good as soon as there is room."""

    def full(self: StateDir, key: str) -> None:
        raise OSError(28, "No space left on device")

    async with mesh.serving(listen=listen(mesh)), mesh.admin() as admin:
        host = await joined(mesh)
        before = host.serial
        with monkeypatch.context() as patch:
            patch.setattr(StateDir, "reserve", full)
            host.later = 12 * HOUR
            async with kept(host):
                entry = await until_said(logs, "certificate not renewed, the old one stays in use")
                assert "No space left" in entry["error"]
                host.later = 25 * HOUR
                await mesh.give_token(host.config)
                entry = await until_said(logs, "only a new token helps")
                assert "No space left" in entry["error"]
        assert (await admin.status()).joining == {"joined": 1}
        async with kept(host):
            await host.until_renewed(before)
            host.later = 0.0
