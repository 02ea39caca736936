"""Two ends of a TCP connection on the loopback interface, and HELLOs to say over it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import trio

from control.base.reading.addresses import TcpAddress
from proxy.links.handshake import Hello

SESSION = "5e5510"


def hello(host: str = "host-a", to: str = "host-b", session: str = SESSION) -> Hello:
    """What `host` says to `to`."""
    return Hello(host=host, to=to, instance="1", session=session, stream_credit=65536, max_streams=100)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets; the caller closes them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other = listener.accept()[0]
    one.setblocking(False)
    other.setblocking(False)
    return one, other


@contextmanager
def streams() -> Iterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """The same as trio streams; what the test leaves open is closed."""
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in tcp_pair())
    try:
        yield one, other
    finally:
        one.socket.close()
        other.socket.close()


@contextmanager
def listening() -> Iterator[tuple[trio.SocketListener, TcpAddress]]:
    """A listener of a peer that the test plays itself."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    with sock:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(sock)), TcpAddress(*sock.getsockname())


@contextmanager
def silent(port: int = 0) -> Iterator[TcpAddress]:
    """An address from which no answer comes: it listens, its queue is full, and the kernel drops what does not fit."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        address = TcpAddress(*listener.getsockname())
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.connect((address.host, address.port))
        yield address
