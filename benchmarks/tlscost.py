"""What TLS costs a link: ``python -m benchmarks.tlscost``. One process plays both ends of a TCP connection on the
loopback interface and moves batches, as a turn of the pump does: CPU µs from the plain bytes at one end to the plain
bytes at the other, through

plain      the socket itself
SSLSocket  ssl.SSLSocket, non-blocking, on the socket
TlsWire    proxy/links/tlswire.py, what links use: OpenSSL on memory buffers

Needs no root and no network namespace. Best of several tries, because whatever else runs only ever adds.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from proxy.config.schema import TlsFiles
from proxy.demo.certificates import CertificateAuthority
from proxy.links.credentials import Credentials, RequiredIdentity, read
from proxy.links.options import prepare_link
from proxy.links.tlswire import TlsWire

SIZES = (64, 256, 1024, 4096, 16384, 32768, 65536, 262144)
IN_BUFFER = 128 * 1024
TRIES = 5


class Wire(Protocol):
    def send(self, view: memoryview, /) -> int: ...
    def recv_into(self, view: memoryview, /) -> int: ...


class SocketTls:
    """ssl.SSLSocket with the two rules of `proxy.links.tlswire`: a record at a time, and read until nothing is left."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def send(self, view: memoryview, /) -> int:
        done = 0
        try:
            while done < len(view):
                done += self._sock.send(view[done : done + 16384])
        except ssl.SSLWantWriteError:
            if not done:
                raise BlockingIOError from None
        return done

    def recv_into(self, view: memoryview, /) -> int:
        filled = 0
        try:
            while filled < len(view) and (count := self._sock.recv_into(view[filled:])):
                filled += count
        except ssl.SSLWantReadError:
            if not filled:
                raise BlockingIOError from None
        return filled


def tcp_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pair = socket.create_connection(listener.getsockname()), listener.accept()[0]
    for sock in pair:
        sock.setblocking(False)
        prepare_link(sock)
        stack.callback(sock.close)
    return pair


def credentials(authority: CertificateAuthority, host: str) -> Credentials:
    with tempfile.TemporaryDirectory() as folder:
        files = TlsFiles(**authority.write(Path(folder), host))
        return read(files, RequiredIdentity("hostlane", host), time.time())


def plain(stack: ExitStack, one: Credentials, other: Credentials) -> tuple[Wire, Wire]:
    return tcp_pair(stack)


def ssl_sockets(stack: ExitStack, one: Credentials, other: Credentials) -> tuple[Wire, Wire]:
    here, there = tcp_pair(stack)
    ends = (
        one.dialling.wrap_socket(here, do_handshake_on_connect=False),
        other.accepting.wrap_socket(there, server_side=True, do_handshake_on_connect=False),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    for end in ends:
        stack.callback(end.close)
    return SocketTls(ends[0]), SocketTls(ends[1])


def tls_wires(stack: ExitStack, one: Credentials, other: Credentials) -> tuple[Wire, Wire]:
    here, there = TlsWire(one.dialling, server_side=False), TlsWire(other.accepting, server_side=True)
    for _ in range(4):
        for near, far in ((here, there), (there, here)):
            try:
                near.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            far.incoming.write(near.outgoing.read())
    here.sock, there.sock = tcp_pair(stack)
    return here, there


WAYS: dict[str, Callable[[ExitStack, Credentials, Credentials], tuple[Wire, Wire]]] = {
    "plain": plain,
    "SSLSocket": ssl_sockets,
    "TlsWire": tls_wires,
}


def cost(ends: tuple[Wire, Wire], size: int, seconds: float) -> float:
    """CPU µs for a batch of so many bytes."""
    near, far = ends
    data, buffer = memoryview(bytearray(size)), memoryview(bytearray(IN_BUFFER))
    begun = time.process_time()
    batches = 0
    while (spent := time.process_time() - begun) < seconds or not batches:
        sent = received = 0
        while received < size:
            try:
                if sent < size:
                    sent += near.send(data[sent:])
                received += far.recv_into(buffer)
            except BlockingIOError:
                pass
        batches += 1
    return spent / batches * 1e6


def table(sizes: tuple[int, ...] = SIZES, seconds: float = 0.15, tries: int = TRIES) -> str:
    authority = CertificateAuthority()
    one, other = credentials(authority, "host-a"), credentials(authority, "host-b")
    lines = ["| bytes | " + " | ".join(f"{name}, µs" for name in WAYS) + " | TlsWire, MB/s |", "|---" * 5 + "|"]
    for size in sizes:
        best = [float("inf")] * len(WAYS)
        for _ in range(tries):
            for number, way in enumerate(WAYS.values()):
                with ExitStack() as stack:
                    best[number] = min(best[number], cost(way(stack, one, other), size, seconds))
        lines.append(f"| {size:,} | " + " | ".join(f"{value:,.1f}" for value in best) + f" | {size / best[-1]:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
