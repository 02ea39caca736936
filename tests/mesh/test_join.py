from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.api import certificates, tokens
from control.api import client as clients
from control.api.mesh import CaBundle, IssueResponse
from control.base.reading.addresses import TcpAddress
from control.ca.issuing import Issuer
from control.ca.joining import HostEnrolment
from proxy.config.schema import Config, TlsFiles
from proxy.errors import StartError
from proxy.mesh import join as joining
from proxy.mesh.join import ensure
from tests.mesh.conftest import Mesh


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PAUSE", 0.01)
    monkeypatch.setattr(clients, "DEADLINE", 1.0)


async def joins(config: Config) -> None:
    with trio.fail_after(60):
        await ensure(config, lambda: 0.0)


async def cannot_join(config: Config) -> str:
    with pytest.raises(StartError) as caught:
        await joins(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def listen(mesh: Mesh) -> TcpAddress:
    return TcpAddress("127.0.0.1", mesh.fixed_port)


async def test_a_host_joins_once(mesh: Mesh) -> None:
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
        await joins(config)
        keyring = mesh.keyring(config)
        async with mesh.client_of(keyring) as client:
            assert (await client.status()).mesh == "hostlane"
    # From then on neither the token nor the control plane is needed to start.
    assert config.control is not None
    assert config.control.token_file is not None
    Path(config.control.token_file).unlink()
    await joins(config)
    assert mesh.keyring(config).current.serial == keyring.current.serial


async def test_hosts_that_have_nothing_to_join(mesh: Mesh) -> None:
    config = mesh.host()
    files = TlsFiles(certificate="/a", key="/b", ca="/c")
    await joins(msgspec.structs.replace(config, control=None))
    await joins(msgspec.structs.replace(config, links=msgspec.structs.replace(config.links, tls=files)))


async def test_without_a_token(mesh: Mesh) -> None:
    config = mesh.host()
    hint = "make a token with: hostlane token create --host host-a"
    assert config.control is not None
    place = config.control.token_file
    assert await cannot_join(config) == (
        f"this host has no certificate yet, and cannot join: control.token_file: {place}: no such file; {hint}"
    )
    without = msgspec.structs.replace(config.control, token_file=None)
    assert "control.token_file is not set" in await cannot_join(msgspec.structs.replace(config, control=without))


@pytest.mark.parametrize("junk", ["", "junk", "hostlane1.AAAA", "\x00\xff", "hostlane1." + "A" * 10_000])
async def test_junk_in_the_token_file(mesh: Mesh, junk: str) -> None:
    config = mesh.host()
    mesh.write_token(config, junk)
    assert "found no token: it " in await cannot_join(config)


async def test_tokens_that_the_control_plane_does_not_take(mesh: Mesh) -> None:
    config, other = mesh.host(), mesh.host("host-b")
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(other)
        await joins(other)
        assert other.control is not None
        # Replayed by whoever has copied it.
        elsewhere = msgspec.structs.replace(other.control, state_dir=f"{mesh.directory}/thief")
        said = await cannot_join(msgspec.structs.replace(other, control=elsewhere))
        assert "the token is not accepted; make a new one" in said
        # Another host's.
        await mesh.give_token(config, "host-b")
        assert "found a token for host host-b, this is host-a" in await cannot_join(config)


async def test_a_control_plane_that_comes_up_later(mesh: Mesh) -> None:
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joins, config)
            while not any(entry["event"] == "cannot join yet, trying on" for entry in logs):
                await trio.sleep(0.01)
            async with mesh.serving(listen=listen(mesh)):
                while not any(entry["event"] == "joined the mesh" for entry in logs):
                    await trio.sleep(0.01)
    assert mesh.keyring(config).current.serial


async def test_another_control_plane(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not the CA of the token, and one that says it has but cannot prove it: neither hears the token."""
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
    folder = mesh.directory / "impostor"
    folder.mkdir()
    impostor = Mesh(folder)
    heard: list[object] = []

    async def hears(self: HostEnrolment, request: object, client: str) -> IssueResponse:
        heard.append(request)
        raise AssertionError

    monkeypatch.setattr(HostEnrolment, "join", hears)
    async with impostor.serving(listen=listen(mesh)):
        assert "not the one that the token names" in await cannot_join(config)
        real = CaBundle(mesh="hostlane", bundle=certificates.pem(mesh.root.certificate))

        async def claims(self: Issuer) -> CaBundle:
            return real

        monkeypatch.setattr(Issuer, "authorities", claims)
        monkeypatch.setattr(joining, "PAUSE", 10.0)  # so that nothing is under way when the test ends
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(joins, config)
                while not (waiting := [entry for entry in logs if entry["event"] == "cannot join yet, trying on"]):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert "its certificate is not accepted" in waiting[0]["error"]
    assert heard == []


async def test_another_mesh(mesh: Mesh) -> None:
    config = mesh.host(mesh="other")
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
        assert "the control plane is that of mesh 'hostlane', this host is for other" in await cannot_join(config)


async def test_a_ca_that_was_replaced_since_the_token_was_made(mesh: Mesh) -> None:
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        raw = await mesh.token()
        found = tokens.parse_untrusted(raw)
        mesh.write_token(config, tokens.text(msgspec.structs.replace(found, ca=("ab" * 32,))))
        assert "a new CA since; make a new token" in await cannot_join(config)
        mesh.write_token(config, raw)
        await joins(config)


async def test_a_certificate_that_has_expired(mesh: Mesh) -> None:
    """The host was off for too long: only a new token helps, and the line says so."""
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
        await joins(config)
        expires = mesh.keyring(config).current.not_after
        with pytest.raises(StartError, match="expired on .*, and cannot join: the token is not accepted"):
            await ensure(config, lambda: 0.0, lambda: expires + 1)
        await mesh.give_token(config)
        await ensure(config, lambda: 0.0, lambda: expires + 1)
    assert mesh.keyring(config).current.not_after >= expires


async def test_a_host_that_was_renamed_joins_again(mesh: Mesh) -> None:
    config = mesh.host()
    async with mesh.serving(listen=listen(mesh)):
        await mesh.give_token(config)
        await joins(config)
        renamed = msgspec.structs.replace(config, host="host-z")
        assert 'found the name "spiffe://hostlane/host/host-a"' in await cannot_join(renamed)
        await mesh.give_token(renamed)
        await joins(renamed)


async def test_a_state_dir_that_cannot_be_written(mesh: Mesh) -> None:
    config = mesh.host()
    assert config.control is not None
    Path(mesh.directory, "file").touch()
    wrong = msgspec.structs.replace(config.control, state_dir=f"{mesh.directory}/file/state")
    assert "control.state_dir: " in await cannot_join(msgspec.structs.replace(config, control=wrong))
