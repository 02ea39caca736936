"""A host that joins by a token alone: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from control.api import tokens
from control.api.tokens import JoinToken
from control.base.reading.addresses import TcpAddress
from proxy.errors import ConfigError, StartError
from proxy.links.keyring import held_files
from proxy.setup.configuration import JoinOptions, text_of
from proxy.setup.enrolment import enrol, judged, own_address
from tests.mesh.conftest import Mesh, mesh

__all__ = ["mesh"]


def content_of(world: Mesh, token: JoinToken) -> str:
    server = f"127.0.0.1:{world.fixed_port}"
    folder = world.directory / "host"
    return text_of(
        JoinOptions(
            host=token.host, mesh=token.mesh, listen=own_address(server), servers=[server], offers={}, uses={},
            state_dir=f"{folder}/state",
        )
    )  # fmt: skip


async def enrolled(world: Mesh, token: JoinToken) -> Path:
    file, content = world.directory / "etc" / "hostlane.yaml", content_of(world, token)
    await trio.to_thread.run_sync(enrol, token, str(file), content, judged(content))
    return file


@pytest.fixture
def clean(mesh: Mesh) -> Iterator[Path]:
    """Nothing of the configuration is left after an error."""
    file = mesh.directory / "etc" / "hostlane.yaml"
    yield file
    assert not file.exists()


async def test_a_token_says_everything(mesh: Mesh) -> None:
    async with mesh.serving(listen=TcpAddress("127.0.0.1", mesh.fixed_port)):
        token = tokens.parse_untrusted(await mesh.token("host-c"))
        assert (token.host, token.mesh) == ("host-c", "hostlane")
        file = await enrolled(mesh, token)
    assert "host: host-c" in file.read_text()
    held = held_files(f"{mesh.directory}/host/state")
    assert all(os.path.exists(path) for path in (held.key, held.certificate, held.ca))
    assert os.stat(mesh.directory / "host" / "state").st_mode & 0o777 == 0o700


async def test_a_token_that_was_used(mesh: Mesh, clean: Path) -> None:
    async with mesh.serving(listen=TcpAddress("127.0.0.1", mesh.fixed_port)):
        token = tokens.parse_untrusted(await mesh.token())
        file = await enrolled(mesh, token)
        with pytest.raises(StartError, match=r"hostlane\.yaml exists"):
            await enrolled(mesh, token)
        file.unlink()
        with pytest.raises(StartError, match="holds a certificate: this host has joined already"):
            await enrolled(mesh, token)
        (mesh.directory / "host").rename(mesh.directory / "before")
        with pytest.raises(StartError, match="^cannot join: .*the token is not accepted"):
            await enrolled(mesh, token)


async def test_no_control_server(mesh: Mesh, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.api.client.DEADLINE", 0.2)
    token = tokens.make("host-a", ("ab" * 32,), os.urandom(40), mesh="hostlane")
    with pytest.raises(StartError, match="^cannot join: "):
        await enrolled(mesh, token)


async def test_another_control_plane(mesh: Mesh, clean: Path) -> None:
    async with mesh.serving(listen=TcpAddress("127.0.0.1", mesh.fixed_port)):
        token = tokens.make("host-a", ("ab" * 32,), os.urandom(40), mesh="hostlane")
        with pytest.raises(StartError, match="the control plane's CA is not the one that the token names"):
            await enrolled(mesh, token)


async def test_nowhere_to_write(mesh: Mesh) -> None:
    (mesh.directory / "etc").write_text("a file")
    token = tokens.make("host-a", ("ab" * 32,), os.urandom(40), mesh="hostlane")
    with pytest.raises(StartError, match=r"^cannot write .*; the token has not been used$"):
        await enrolled(mesh, token)


def test_mistakes_are_said_by_their_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        judged("host: host-a\nlinks: {listen: 10.77.0.1}\ncontrol: {servers: ['10.77.0.2:1']}\n")
    assert caught.value.problems[0].startswith('links.listen: found "10.77.0.1", no port; allowed: ')


def test_no_way_to_the_control_server() -> None:
    with pytest.raises(StartError, match=r"^no way to the control server nowhere\.invalid:7601: .*--listen IP:PORT"):
        own_address("nowhere.invalid:7601")
    assert own_address("127.0.0.1:7601") == "127.0.0.1:7600"
    assert own_address("[::1]:7601") == "[::1]:7600"
