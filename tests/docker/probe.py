"""What calls Redis again and again from inside a container, and writes down what became of every call.

    python3 probe.py FILE WAY...

A way is ``tcp:IP:PORT``, ``unix:/path``, or ``connect:/path`` (HTTP CONNECT to ``redis``). On each way, one connection
is kept and says something every 10 ms, and a new one is made every 50 ms (or EVERY, in seconds), also while older ones
still wait. Everything that is said is unlike all else, and is to be said again by Redis (ECHO). FILE gets a line of
JSON for each call: `tests.docker.traffic.Call`. It uses nothing but Python's own library, as it runs in a container
with nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time

EVERY = {"kept": 0.01, "new": float(os.environ.get("EVERY", "0.05"))}
"""Seconds between two calls."""
LIMIT = 60.0
"""Seconds after which a call that waits has failed."""

_numbers = itertools.count()


def connect(way: str) -> socket.socket:
    kind, _, where = way.partition(":")
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host, int(port)), LIMIT)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT)
    sock.connect(where)
    if kind == "connect":
        sock.sendall(b"CONNECT redis:6379 HTTP/1.1\r\nHost: redis\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (byte := sock.recv(1)):
                raise EOFError
            head += byte
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionRefusedError(head.split(b"\r\n")[0].decode())
    return sock


def ask(sock: socket.socket) -> None:
    """Raises ValueError if the answer is a wrong one, EOFError if there is none."""
    word = f"{os.getpid()}-{next(_numbers)}-{time.time_ns()}".encode()
    sock.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(word), word))
    wanted, got = b"$%d\r\n%s\r\n" % (len(word), word), b""
    while len(got) < len(wanted):
        if not (piece := sock.recv(4096)):
            raise EOFError
        got += piece
    if got != wanted:
        raise ValueError(f"{got!r} instead of {wanted!r}")


class Probe:
    def __init__(self, file: str) -> None:
        self._out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def note(self, way: str, kind: str, began: float, error: str) -> None:
        line = {"way": way.partition(":")[0], "kind": kind, "began": began, "ended": time.time(), "error": error}
        os.write(self._out, json.dumps(line).encode() + b"\n")

    def call(self, way: str, kind: str, sock: socket.socket | None) -> socket.socket | None:
        """Ask once, and note what became of it. Returns the connection, which lives on only if all was well."""
        began, error = time.time(), ""
        try:
            sock = sock or connect(way)
            ask(sock)
        except ConnectionRefusedError as refused:
            error = f"refused: {refused}"
        except EOFError:
            error = "ended"
        except OSError as failed:
            error = type(failed).__name__
        except ValueError as wrong:
            error = f"wrong: {wrong}"
        self.note(way, kind, began, error)
        if error and sock is not None:
            sock.close()
        return None if error else sock

    def keep(self, way: str) -> None:
        sock = None
        while True:
            sock = self.call(way, "kept", sock)
            time.sleep(EVERY["kept"])

    def once(self, way: str) -> None:
        sock = self.call(way, "new", None)
        if sock is not None:
            sock.close()

    def renew(self, way: str) -> None:
        while True:
            threading.Thread(target=self.once, args=(way,), daemon=True).start()
            time.sleep(EVERY["new"])


def main() -> None:
    probe = Probe(sys.argv[1])
    work = [threading.Thread(target=each, args=(way,)) for way in sys.argv[2:] for each in (probe.keep, probe.renew)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


if __name__ == "__main__":
    main()
