"""Hosts that join a real control server: its CA, its store, TLS and HTTP, all on loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.api.client import ControlClient
from control.api.mesh import TokenRequest
from proxy.config.schema import Config, parse
from proxy.links.credentials import RequiredIdentity
from proxy.links.keyring import Keyring, held_files
from tests.control.server.conftest import World
from tests.tools.sockets import free_port


class Mesh(World):
    """A control server on a port that stays the same, and hosts with directories beside it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.fixed_port = free_port()

    def host(self, name: str = "host-a", mesh: str = "hostlane") -> Config:
        """The configuration of a host."""
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        return parse(
            f"host: {name}\nmesh: {mesh}\nrun_dir: {folder}/run\nlinks: {{listen: 127.0.0.1:7600}}\n"
            f"control:\n  servers: ['127.0.0.1:{self.fixed_port}']\n"
            f"  token_file: {folder}/token\n  state_dir: {folder}/state\n",
            "host.yaml",
        )

    async def token(self, host: str = "host-a") -> str:
        async with self.admin() as admin:
            return (await admin.create_token(TokenRequest(host=host, ttl=600))).token

    async def give_token(self, config: Config, host: str | None = None) -> None:
        """A token in the host's file."""
        self.write_token(config, await self.token(host or config.host))

    def write_token(self, config: Config, text: str) -> None:
        assert config.control is not None
        assert config.control.token_file is not None
        Path(config.control.token_file).write_text(text)

    def keyring(self, config: Config) -> Keyring:
        assert config.control is not None
        return Keyring(held_files(config.control.state_dir), RequiredIdentity(config.mesh, config.host))

    def client_of(self, keyring: Keyring) -> ControlClient:
        """The host's own, with whatever certificate it has then."""
        return ControlClient([f"127.0.0.1:{self.fixed_port}"], lambda: keyring.current.control)


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    directory = Path(tempfile.mkdtemp(prefix="hl-"))
    made = Mesh(directory)
    yield made
    shutil.rmtree(directory)
