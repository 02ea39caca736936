"""Both ends of a handover's connection, and a proxy that has things to hand over."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from proxy.agent.handover.sender import OfferedListener
from proxy.mesh.statelock import StateLock
from proxy.outbound.sockets import InheritableListener


def ends() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Of one connection between two processes, which is this one twice."""
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


class RecordingSource:
    """A proxy with two sockets, that writes down what becomes of it."""

    host = "host-a"

    def __init__(self) -> None:
        self.state: StateLock | None = None
        self.told: list[str] = []
        self.why: str | None = None
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]

    def reserve(self) -> str | None:
        return self.why

    def sockets(self) -> Iterator[OfferedListener]:
        for number, listener in enumerate(self.listeners, 1):
            yield OfferedListener("upstream", f"tcp:127.0.0.1:{number}", InheritableListener(listener))

    def pause(self, pid: int) -> str | None:
        if self.why is None:
            self.told.append(f"pause {pid}")
        return self.why

    def resume(self) -> None:
        self.told.append("resume")

    def retire(self, seconds: float) -> None:
        self.told.append(f"retire {seconds:g}")

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A run_dir: the path of a Unix socket has few bytes."""
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
