"""A whole control server on loopback: its own CA, its own store, TLS, and clients with certificates of hosts."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio
from trio.testing import MockClock

import control.api.client
from control.api import certificates, mesh
from control.api.client import ControlClient
from control.api.mesh import HostRecord, RegisterRequest, ServiceOffer
from control.base.reading.addresses import TcpAddress
from control.ca import root as ca
from control.ca.issuing import ClientCertificate, Issuer
from control.ca.keyfiles import KeyFiles
from control.server import serve
from control.server.addressbook import AddressBook
from control.server.config import Config, ControlLimits, SqliteConfig, StoreConfig
from control.server.hosts import HostRegistry
from control.server.namesakes import Namesakes
from control.store.base import Put
from control.store.base import Store as AnyStore

MESH = "hostlane"
LIMITS = ControlLimits(requests_per_second=1000, connections_per_client=200)
PATIENCE = 20.0


class World:
    """A mesh in a directory; `serving` runs a control server in it.

    Attributes:
        port: where the running one listens.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.keys = KeyFiles(str(directory / "ca"))
        self.root = self.keys.create(MESH, time.time())
        self.config = Config(
            name="control-1",
            listen=TcpAddress("127.0.0.1", 0),
            run_dir=str(directory / "run"),
            state_dir=str(directory),
            store=StoreConfig(sqlite=SqliteConfig(path=str(directory / "store.db"))),
            limits=LIMITS,
        )

    @asynccontextmanager
    async def serving(self, **changes: object) -> AsyncIterator[World]:
        self.config = msgspec.structs.replace(self.config, **changes)
        with trio.fail_after(6 * PATIENCE):
            async with trio.open_nursery() as nursery:
                self.port = await nursery.start(serve.run, self.config)
                yield self
                nursery.cancel_scope.cancel()

    @property
    def socket(self) -> str:
        return f"{self.config.run_dir}/control.sock"

    def context(self, host: str | None = None, *, root: ca.RootCa | None = None, began: float = 0.0) -> ssl.SSLContext:
        """TLS of a client; with a host's certificate if one is named, by another CA if that is given. It is good for an
        hour, beginning so many seconds from now.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=certificates.pem(self.root.certificate))
        if host is not None:
            key = certificates.new_key()
            leaf = ca.issue(
                root or self.root,
                key.public_key(),
                ca.CertificateNames.host(MESH, host),
                time.time() + began,
                3600.0,
            )
            file = self.directory / f"{host}-{os.urandom(4).hex()}.pem"
            file.write_text(f"{leaf.certificate}{certificates.key_pem(key)}")
            context.load_cert_chain(file)
        return context

    def client(self, host: str | None = None, context: ssl.SSLContext | None = None) -> ControlClient:
        found = context or self.context(host)
        return ControlClient([f"127.0.0.1:{self.port}"], lambda: found, name=MESH)

    def admin(self) -> ControlClient:
        return ControlClient([f"unix:{self.socket}"])

    async def raw(self, host: str | None = None) -> trio.SSLStream[trio.SocketStream]:
        """A connection on which a test says what it likes."""
        tcp = await trio.open_tcp_stream("127.0.0.1", self.port)
        name = mesh.control_name(MESH)
        stream = trio.SSLStream(tcp, self.context(host), server_hostname=name, https_compatible=True)
        await stream.do_handshake()
        return stream


@pytest.fixture
def world() -> Iterator[World]:
    # Short, because a Unix socket's path must be; pytest's tmp_path is not.
    directory = Path(tempfile.mkdtemp(prefix="hl-"))
    yield World(directory)
    shutil.rmtree(directory)


def over_after_a_round(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> Random:
    """The dice of a client whose time is over as soon as it has asked each server once, however long that took.

    It rolls them after each round, to pause; a deadline in seconds may be over before the first one on a busy machine.
    """
    dice = Random()

    def roll() -> float:
        clock.jump(control.api.client.DEADLINE)
        return 1.0

    monkeypatch.setattr(dice, "random", roll)
    return dice


async def news(messages: AsyncIterator[mesh.WatchMessage]) -> mesh.MapSnapshot | mesh.MapChanges:
    """The next message of a watch that tells something: heartbeats come whenever a server was silent for a while."""
    while isinstance(message := await anext(messages), mesh.MapHeartbeat):
        pass
    return message


def record(name: str, *services: str, address: str = "", instance: str = "1") -> HostRecord:
    place = address or f"10.77.0.{sum(name.encode()) % 250 + 1}:7600"
    offers = tuple(ServiceOffer(name=each) for each in services)
    return HostRecord(name=name, address=place, instance=instance, services=offers)


SHOWN = ClientCertificate("host-a", "5e41", 4e9, b"")


async def knowing(store: AnyStore) -> AnyStore:
    """The store, which knows the certificate SHOWN."""
    await store.commit(put=[Put(SHOWN.keys[0], b"{}")])
    return store


def shown(
    name: str, *services: str, secret: str = "", before: str = "", yields: bool = False, **more: str
) -> tuple[RegisterRequest, ClientCertificate]:
    """A registration by that certificate, whose name does not matter there."""
    request = RegisterRequest(record=record(name, *services, **more), secret=secret, before=before, yields=yields)
    return request, SHOWN


def hosts_on(
    store: AnyStore, lease: float = 15.0, book: AddressBook | None = None, namesakes: Namesakes | None = None
) -> HostRegistry:
    issuer = Issuer(store, KeyFiles("/nowhere"), mesh=MESH)
    return HostRegistry(store, book or AddressBook(store, {}), issuer, lease, namesakes)
