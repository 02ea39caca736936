"""The admin socket of a proxy that answers what a test wants: a small server in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
