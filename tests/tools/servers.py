"""Servers for the far end of a stream: one whose every move the test makes, and one that echoes from a thread."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.tools.sockets import PATIENCE, parse

_HIGH_WATER = 1 << 20
# Bytes that Echo keeps for a client that does not read, before it stops reading from it.


class Listener:
    """Listens; the test accepts and does the rest. ``with`` closes it (not what was accepted).

    Args:
        address: ``unix:/path`` or ``tcp:host:port`` (port 0: any), or a path.
        sock: an unbound socket to use, such as one that lives in another network namespace.

    Attributes:
        address: as the configuration's ``deliver`` takes it, with the real port.
    """

    def __init__(self, address: str | Path, sock: socket.socket | None = None, *, backlog: int = 4096) -> None:
        family, target = parse(address)
        self.sock = sock if sock is not None else socket.socket(family)
        self.sock.settimeout(PATIENCE)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.sock.bind(target)
            self.sock.listen(backlog)
        except BaseException:
            self.sock.close()
            raise
        self.path = Path(str(target)) if family == socket.AF_UNIX else None
        self.address = f"unix:{target}" if self.path else _tcp(self.sock.getsockname()[:2])

    def accept(self) -> socket.socket:
        """The next connection, blocking, for at most PATIENCE in each call. The caller closes it."""
        sock, _ = self.sock.accept()
        sock.settimeout(PATIENCE)
        return sock

    def close(self) -> None:
        """Stop listening and remove the socket file, so that the same address can be used again."""
        self.sock.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tcp(name: tuple[str, int]) -> str:
    host, port = name
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"


class Echo:
    """Echoes on any number of connections from one thread; ends a connection when its client has and all is echoed.

    Attributes:
        accepted, ended, resets: connections so far; those that ended cleanly; those that were reset.
    """

    def __init__(self, address: str | Path, sock: socket.socket | None = None) -> None:
        self.listener = Listener(address, sock)
        self.address = self.listener.address
        self.accepted = self.ended = self.resets = 0
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._pending: dict[socket.socket, bytearray] = {}
        self._finished: set[socket.socket] = set()
        self.listener.sock.setblocking(False)
        self._selector.register(self.listener.sock, selectors.EVENT_READ)
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=f"echo {self.address}", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return self.accepted - self.ended - self.resets

    def close(self) -> None:
        """Stop, and close all connections as a server does that exits. May be called again."""
        with suppress(OSError):
            self._stop.send(b"x")
        self._thread.join()
        for sock in [*self._pending, self._stop, self._stopped]:
            sock.close()
        self._selector.close()
        self.listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                if key.fileobj is self.listener.sock:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._move(key.fileobj, events)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while True:
                sock, _ = self.listener.sock.accept()
                sock.setblocking(False)
                self.accepted += 1
                self._pending[sock] = bytearray()
                self._selector.register(sock, selectors.EVENT_READ)

    def _move(self, sock: socket.socket, events: int) -> None:
        pending = self._pending[sock]
        try:
            if events & selectors.EVENT_READ:
                piece = sock.recv(65536)
                pending += piece
                if not piece:
                    self._finished.add(sock)
            if pending:
                del pending[: sock.send(pending)]
        except BlockingIOError:
            pass
        except ConnectionError:
            return self._close(sock, clean=False)
        if sock in self._finished and not pending:
            return self._close(sock, clean=True)
        self._want(sock, pending)
        return None

    def _want(self, sock: socket.socket, pending: bytearray) -> None:
        read = sock not in self._finished and len(pending) < _HIGH_WATER
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if pending else 0)
        self._selector.modify(sock, events)

    def _close(self, sock: socket.socket, *, clean: bool) -> None:
        self._selector.unregister(sock)
        del self._pending[sock]
        self._finished.discard(sock)
        sock.close()
        if clean:
            self.ended += 1
        else:
            self.resets += 1
