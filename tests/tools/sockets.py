"""Client sockets and descriptors: connect by an address as the configuration writes it, end in every way, count."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from control.base.reading.addresses import socket_address

PATIENCE = float(os.environ.get("PATIENCE", "20"))
"""Seconds after which a test that waits has failed. No test takes anywhere near as long when all is well; an emulated
machine (tests/vm) is slower.
"""


def connect(address: str | Path, sock: socket.socket | None = None) -> socket.socket:
    """Connect to ``unix:/path``, ``tcp:host:port`` or a path; blocking, but for at most PATIENCE in each call.

    Args:
        sock: an unconnected socket to use, such as one that lives in another network namespace.
    """
    family, target = parse(address)
    client = sock if sock is not None else socket.socket(family)
    client.settimeout(PATIENCE)
    try:
        client.connect(target)
    except BaseException:
        client.close()
        raise
    return client


def parse(address: str | Path) -> tuple[socket.AddressFamily, str | tuple[str, int] | tuple[str, int, int, int]]:
    """Family and address as the socket module takes them."""
    scheme, _, rest = str(address).partition(":")
    if scheme != "tcp":
        return socket.AF_UNIX, rest if scheme == "unix" else str(address)
    host, _, port = rest.rpartition(":")
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    return family, socket_address(host.strip("[]"), int(port))


def exchange(sock: socket.socket, payload: bytes) -> None:
    """Send to an echo server and check what comes back. For payloads that fit into the buffers on the way."""
    sock.sendall(payload)
    assert read_exactly(sock, len(payload)) == payload


def read_exactly(sock: socket.socket, length: int) -> bytes:
    """``length`` bytes; AssertionError if the stream ends before. Raises ConnectionResetError if it was reset."""
    received = bytearray()
    while len(received) < length:
        piece = sock.recv(min(65536, length - len(received)))
        assert piece, f"the stream ended after {len(received)} of {length} bytes"
        received += piece
    return bytes(received)


class Ending(NamedTuple):
    """How a stream ended for its reader."""

    received: bytes
    reset: bool


def read_to_end(sock: socket.socket) -> Ending:
    """All bytes until the end or the reset, whichever it is."""
    received = bytearray()
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionResetError:
        return Ending(bytes(received), reset=True)
    return Ending(bytes(received), reset=False)


def ending_of(call: Callable[[], socket.socket]) -> Ending:
    """What becomes of a call that the other side ends by itself, as early as it likes: a reset that comes while the
    kernel still tells of the connection is raised by connect(), a later one by recv().

    Args:
        call: makes the connection, and says nothing on it.
    """
    try:
        sock = call()
    except ConnectionResetError:
        return Ending(b"", reset=True)
    with sock:
        return read_to_end(sock)


def say(sock: socket.socket, words: bytes) -> None:
    """Send to somebody who may have refused or ended the call by now; how it ends is seen by reading."""
    with suppress(ConnectionError):
        sock.sendall(words)


def abort(sock: socket.socket) -> None:
    """Close without an end. TCP sends RST; a Unix socket can say so only if bytes are left unread in it."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody uses now. Only for what has to be told its port before it listens.

    Below those that the kernel gives to whoever asks for any: other tests do, at the same time.
    """
    found: dict[int, None] = {}
    for _ in range(1000):
        port = 20_000 + secrets.randbelow(12_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found[port] = None
        if len(found) == count:
            return list(found)
    raise AssertionError(f"found {len(found)} free ports of {count}")


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


def owner_of(path: str | Path) -> int:
    """The pid of the process that listens on a Unix socket. Raises as connect does."""
    with connect(path) as client:
        pid, _, _ = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def dead_socket(path: str | Path) -> None:
    """What a process that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def names(directory: Path) -> list[str]:
    """The entries of a directory, hidden ones too."""
    return sorted(entry.name for entry in directory.iterdir())


def open_fds(pid: int | str = "self") -> list[str]:
    """The numbers of a process's open descriptors, in order."""
    directory = f"/proc/{pid}/fd"
    # The one that listdir itself had open is in the list, but gone by now.
    return sorted((fd for fd in os.listdir(directory) if os.path.lexists(f"{directory}/{fd}")), key=int)


def fds_since(before: list[str]) -> set[str]:
    """The numbers of this process's descriptors that were not open `before`. Some that were may be gone: what earlier
    tests left in circles of references is closed whenever those are collected.
    """
    return set(open_fds()) - set(before)


def count_fds(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(open_fds(pid))


def eventually(check: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until ``check()`` is true, for what no event tells about; AssertionError after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.01)
