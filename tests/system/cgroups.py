"""Cgroups with a memory limit, of the version that this machine has, and proxies that live in them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.system.memory import fill
from tests.system.world import ask
from tests.tools.mesh import Mesh
from tests.tools.servers import Listener
from tests.tools.sockets import eventually

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Cgroup:
    """``with`` gives a cgroup with this limit, below one without; OSError if this machine lets nobody make it.

    Attributes:
        folder: its files.
        file: the one with its limit.
    """

    def __init__(self, limit: int) -> None:
        self.v2 = (V2 / "cgroup.controllers").exists()
        self._outer = (V2 if self.v2 else V1) / f"hl-test-{os.getpid()}"
        self.folder = self._outer / "inner"
        self.file = self.folder / ("memory.max" if self.v2 else "memory.limit_in_bytes")
        self._limit = limit

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` in it."""
        return ["sh", "-c", f'echo $$ >{self.folder}/cgroup.procs && exec "$@"', "sh", *argv]

    def kills(self) -> int:
        """How many processes the kernel has killed in it."""
        found = re.search(r"^oom_kill (\d+)$", self._text("memory.events" if self.v2 else "memory.oom_control"), re.M)
        assert found is not None
        return int(found[1])

    def most(self) -> int:
        """Bytes that were in use at the most."""
        return int(self._text("memory.peak" if self.v2 else "memory.max_usage_in_bytes"))

    def __enter__(self) -> Self:
        if self.v2:
            (V2 / "cgroup.subtree_control").write_text("+memory")
        self._outer.mkdir()
        if self.v2:
            (self._outer / "cgroup.subtree_control").write_text("+memory")
        self.folder.mkdir()
        self.file.write_text(str(self._limit))
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.rmdir()
        self._outer.rmdir()

    def _text(self, name: str) -> str:
        return (self.folder / name).read_text()


class Stalled:
    """A mesh whose host-b, with its proxy in a cgroup, has a service that accepts calls and reads nothing.

    Args:
        more: further sections of both configurations.
    """

    def __init__(self, cgroup: Cgroup, stack: ExitStack, more: dict[str, Any] | None = None) -> None:
        self._stack = stack
        path = stack.enter_context(tempfile.TemporaryDirectory(prefix="hl-"))
        self.listener = stack.enter_context(Listener(f"unix:{path}/service.sock"))
        self.mesh = Mesh(f"unix:{path}/service.sock", more={"log": {"level": "info"}, **(more or {})})
        self.mesh.b.argv = cgroup.inside(self.mesh.b.argv)
        stack.enter_context(self.mesh)
        self.refused = 0
        self._callers: list[socket.socket] = []
        self._accepted: list[socket.socket] = []

    def ask(self, host: str, what: str) -> Any:
        """What the admin socket of ``a`` or ``b`` says."""
        return ask(self.mesh.folder / host / "run" / "admin.sock", what)

    def link_buffers(self) -> set[int]:
        """Bytes that the kernel holds at most for host-b's link, sent and received, as it tells them itself."""
        (link,) = self.ask("b", "links")
        own, other = (link[end].rpartition(":")[2] for end in ("local", "remote"))
        argv = ["ss", "-Htmn", "state", "established", f"( sport = :{own} and dport = :{other} )"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        return {int(size) for size in re.findall(r"\b[rt]b(\d+)", said)}

    def talk(self) -> None:
        """One more call, which is answered."""
        with self.mesh.call() as client:
            client.sendall(b"ping")
            with self.listener.accept() as server:
                server.sendall(server.recv(4) + b"!")
                assert client.recv(5) == b"ping!"

    def stall(self, count: int) -> None:
        """So many callers send until they are stopped or refused."""
        for _ in range(count):
            client = self._stack.enter_context(self.mesh.call())
            client.sendall(b"?")
            self._accepted.append(self._stack.enter_context(self.listener.accept()))
            client.setblocking(False)
            self._callers.append(client)
        eventually(self._settled, "every caller is stopped or refused")

    def _settled(self) -> bool:
        for client in list(self._callers):
            try:
                fill(client)
            except (BrokenPipeError, ConnectionResetError):
                self._callers.remove(client)
                self.refused += 1
        return all(stream["credit"] == 0 for stream in self.ask("a", "streams"))

    def leave(self) -> None:
        """All callers and the service hang up."""
        for sock in (*self._callers, *self._accepted):
            sock.close()
        self._callers, self._accepted = [], []
        eventually(lambda: self.ask("b", "status")["streams"] == 0, "no stream any more")
