"""Brings a port of a demo's host to this machine: a browser here does not reach into a network namespace."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from proxy.demo.processes import CommandHost

TAKEN = 65536
"""Bytes at a time."""


class PortForward:
    """Context manager: takes connections at a port of this machine's loopback, which is free, and carries each to the
    port of that host. Leaving the block ends those that there are.

    Attributes:
        port: where it listens.
    """

    def __init__(self, place: CommandHost, port: int) -> None:
        self._place, self._target = place, (place.address, port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._over = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over = True
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._threads = [each for each in self._threads if each.is_alive()]
            thread = threading.Thread(target=self._carry, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, self._place.socket() as there:
            ends = {client, there}
            self._open |= ends
            back = threading.Thread(target=_copy, args=(there, client), daemon=True)
            try:
                there.connect(self._target)
                if not self._over:
                    back.start()
                    _copy(client, there)
                    back.join()
            except OSError:
                pass  # the browser sees the end of its connection, and asks again
            finally:
                self._open -= ends


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(TAKEN):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
