"""The admin socket of a proxy that answers what a test wants (a small server in a thread), and control servers without
HTTP: a store, a CA, and what decides who belongs to the mesh.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from control.api import certificates
from control.api.mesh import IssueResponse, JoinRequest, TokenRequest, TrustBundle
from control.ca.issuing import Issuer
from control.ca.joining import HostEnrolment
from control.ca.keyfiles import KeyFiles
from control.ca.rotation import CaRotation
from control.ca.trust import PREFIXES, TrustView
from control.store.base import Store
from control.store.sqlite import open_sqlite

Answering = Callable[..., str]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """``answering(body, status=200)`` is the path of a socket where every client gets that, or just ``raw``."""
    servers: list[socket.socket] = []

    def start(body: bytes = b"", status: int = 200, raw: bytes | None = None) -> str:
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        place = str(tmp_path / f"{len(servers)}.sock")
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(place)
        server.listen()
        threading.Thread(
            target=_serve, args=(server, head.encode() + body if raw is None else raw), daemon=True
        ).start()
        return place

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _serve(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            # Nothing to read: somebody only looked whether anybody is here.
            if client.recv(4096):
                client.sendall(answer)


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.25

    def __call__(self) -> float:
        return self.now


class Server:
    """One control server's share of a mesh's identity, without HTTP."""

    def __init__(self, store: Store, directory: str, clock: Clock, mesh: str = "hostlane") -> None:
        self.store, self.clock, self.mesh = store, clock, mesh
        self.keys = KeyFiles(directory)
        self.issuer = Issuer(store, self.keys, mesh=mesh, now=clock)
        self.joining = HostEnrolment(store, self.issuer, now=clock)
        self.rotation = CaRotation(store, self.keys, mesh=mesh, now=clock)

    async def join(self, host: str, key: certificates.Key | None = None) -> IssueResponse:
        """A host by that name, with a token of its own."""
        token = (await self.joining.create_token(TokenRequest(host=host, ttl=600))).token
        csr = certificates.request(key or certificates.new_key())
        return await self.joining.join(JoinRequest(host=host, token=token, csr=csr), "10.0.0.9")

    async def trust(self) -> TrustBundle:
        """What watchers are told."""
        view = TrustView()
        for prefix in PREFIXES:
            for item in (await self.store.read(prefix)).items:
                view.put(item.key, item.value)
        assert view.trust is not None
        return view.trust


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def real_store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that began empty."""
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield opened


@pytest.fixture
async def server(real_store: Store, tmp_path: Path, clock: Clock) -> Server:
    """A control server of a mesh that has one CA and no host yet."""
    made = Server(real_store, str(tmp_path / "ca"), clock)
    made.keys.create(made.mesh, clock())
    await made.issuer.open()
    return made


@pytest.fixture
async def second(server: Server, tmp_path: Path, clock: Clock) -> Server:
    """Another control server on the same store, with a copy of the key."""
    shutil.copytree(tmp_path / "ca", tmp_path / "ca-second")
    made = Server(server.store, str(tmp_path / "ca-second"), clock)
    await made.issuer.open()
    return made
