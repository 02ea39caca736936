"""Two ends of a TCP connection on the loopback interface, and HELLOs to say over it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Self

import trio

from control.base.reading.addresses import TcpAddress
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello
from proxy.links.listening import LinkListeners

SESSION = "5e5510"
ANYWHERE = LinkDevice("0.0.0.0")
"""Dials come from whatever address and interface the routes say."""


def opened(address: TcpAddress) -> list[trio.SocketListener]:
    """What a proxy with this ``links.listen`` listens on. The caller closes it. Raises StartError."""
    listeners = LinkListeners(address, LinkDevice(address.host))
    listeners.open()
    return listeners.all


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


class Relay:
    """A way between a dialler and a host: a port that passes bytes on to another one, in both directions, until it is
    told otherwise.

    Attributes:
        deaf: whether what the host says is lost; mute: whether what the dialler says is. What was lost stays so.
        passed: connections that were accepted.
    """

    def __init__(self, target: TcpAddress) -> None:
        self.deaf = self.mute = False
        self.passed = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = TcpAddress(*self._listener.getsockname())
        self._open: list[trio.SocketStream] = []

    def cut(self) -> None:
        """Both sides of every connection find that it is lost."""
        for stream in self._open:
            if stream.socket.fileno() < 0:
                continue
            trio.lowlevel.notify_closing(stream.socket)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        self._open.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """The block has it running; nothing is left open behind it."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._pass, [listener])
            yield self
            nursery.cancel_scope.cancel()
        self.cut()

    async def _pass(self, dialler: trio.SocketStream) -> None:
        self.passed += 1
        self._open.append(dialler)
        try:
            host = await trio.open_tcp_stream(self._target.host, self._target.port)
        except OSError:
            return self.cut()
        self._open.append(host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, dialler, host, lambda: self.mute)
            nursery.start_soon(self._copy, host, dialler, lambda: self.deaf)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, lost: Callable[[], bool]) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await source.receive_some(65536):
                if not lost():
                    await sink.send_all(piece)
            if not lost():
                await sink.send_eof()
