"""A small service manager, which does for a process what systemd does for a service: hears what it says (sd_notify(3)),
stores its descriptors (FDSTORE), and hands them to the next process that it starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.tools.process import Process
from tests.tools.sockets import eventually

MOST = 64

LAUNCHER = """
import fcntl, json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    sock.connect(sys.argv[1])
    said, found, _, _ = socket.recv_fds(sock, 65536, 200)
told = json.loads(said)
high = [fcntl.fcntl(each, fcntl.F_DUPFD, 500) for each in found]
for each in found:
    os.close(each)
for number, each in enumerate(high, 3):
    os.dup2(each, number)
    os.close(each)
if high:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=":".join(told["names"]))
os.environ.update(told["environment"])
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceManager:
    """``with`` runs it.

    Args:
        folder: where its sockets are.
        room: how many descriptors it stores (``FileDescriptorStoreMax``), and says so in ``FDSTORE``.

    Attributes:
        stored: by name, the descriptors that it has; said: all that it was told, without descriptors.
    """

    def __init__(self, folder: Path, room: int = MOST) -> None:
        self.stored: dict[str, int] = {}
        self.said: list[dict[str, str]] = []
        self._room = room
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(folder / "notify"))
        self._asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.bind(str(folder / "launch"))
        self._asked.listen()
        self._place, self._done = folder, False
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._hear, self._launch)]

    def service(self, argv: Sequence[str]) -> Process:
        """A process that is given what is stored, each time that it is started."""
        return Process([sys.executable, "-c", LAUNCHER, str(self._place / "launch"), *argv])

    def wait_for(self, **said: str) -> None:
        """Wait until a process has said this."""
        eventually(lambda: any(said.items() <= each.items() for each in list(self.said)), f"{said}")

    def ready(self, times: int) -> None:
        """Wait until so many processes have said that they are ready: what they had to store is stored by then."""
        eventually(lambda: sum("READY" in each for each in list(self.said)) >= times, "READY=1")

    def _hear(self) -> None:
        while True:
            data, found, _, _ = socket.recv_fds(self._notified, 65536, 16)
            said = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            if "END" in said:
                return
            name = said.get("FDNAME", "stored")
            if "FDSTOREREMOVE" in said and name in self.stored:
                os.close(self.stored.pop(name))
            for each in found:
                known = any(os.path.sameopenfile(each, other) for other in self.stored.values())
                if "FDSTORE" not in said or known or len(self.stored) >= self._room:
                    os.close(each)
                else:
                    self.stored[name] = each
            self.said.append(said)

    def _launch(self) -> None:
        while not self._done:
            client, _ = self._asked.accept()
            with client:
                environment = {"NOTIFY_SOCKET": str(self._place / "notify")}
                if self._room:
                    environment["FDSTORE"] = str(self._room)
                told = json.dumps({"names": list(self.stored), "environment": environment})
                with suppress(BrokenPipeError):
                    socket.send_fds(client, [told.encode()], list(self.stored.values()))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"END=1", str(self._place / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as nobody:
            nobody.connect(str(self._place / "launch"))
        for thread in self._threads:
            thread.join()
        for each in self.stored.values():
            os.close(each)
        self._notified.close()
        self._asked.close()
