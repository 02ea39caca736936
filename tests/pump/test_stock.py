from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from proxy.errors import CloseReason
from proxy.pump.connecting import Connector
from proxy.pump.options import LocalSocket
from proxy.pump.stock import SIZE, InsideAddress
from tests.pump.rig import Host, running, until
from tests.tools.sockets import PATIENCE, fds_since, free_port, open_fds

NAMESPACE = 7
"""The sockets of these tests are of this process's own namespace: what that is nobody asks here."""


def sockets(count: int) -> list[LocalSocket]:
    return [LocalSocket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(count)]


class Shop:
    """A connector, what it asks the door for, and what becomes of its connections."""

    def __init__(self, host: Host) -> None:
        self.connector = Connector(host.pump, host.deadlines)
        self.stocks = self.connector.stocks
        self.asked: list[tuple[int, int, int]] = []
        self.stocks.ask = lambda *what: self.asked.append(what)
        self.ended: list[tuple[LocalSocket | None, CloseReason, str]] = []

    def connect(self, port: int, seconds: float = PATIENCE) -> object:
        address = InsideAddress("127.0.0.1", port, NAMESPACE, "web")
        return self.connector.connect(address, seconds, lambda *end: self.ended.append(end))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as made:
        yield made


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    before = open_fds()
    host = Host()
    async with running(host):
        made = Shop(host)
        yield made
        made.stocks.close_all()
        host.pump.settle()
        for sock, _, _ in made.ended:
            if sock is not None:
                sock.close()
    assert not fds_since(before)
    assert not made.stocks.under_way


async def test_a_connection_takes_a_socket_of_the_stock(listening: socket.socket) -> None:
    async with shop() as made:
        port = listening.getsockname()[1]
        made.stocks.open(InsideAddress("127.0.0.1", port, NAMESPACE, "web"))
        assert made.asked == [(NAMESPACE, 4, SIZE)]
        made.stocks.add(NAMESPACE, 4, sockets(SIZE))
        assert made.connect(port) is not None
        await until(lambda: made.ended, "the connection")
        [(sock, reason, detail)] = made.ended
        assert sock is not None
        assert (reason, detail) == (CloseReason.FINISHED, "")
        assert sock.getpeername() == ("127.0.0.1", port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert len(made.asked) == 1, "most of it is there"


async def test_whoever_finds_it_empty_waits(listening: socket.socket) -> None:
    async with shop() as made:
        port = listening.getsockname()[1]
        made.stocks.open(InsideAddress("127.0.0.1", port, NAMESPACE, "web"))
        for _ in range(SIZE + 1):
            made.connect(port)
        await trio.sleep(0)
        assert made.ended == []
        made.stocks.add(NAMESPACE, 4, sockets(SIZE))
        assert made.asked == [(NAMESPACE, 4, SIZE)] * 2
        made.stocks.add(NAMESPACE, 4, sockets(SIZE))
        await until(lambda: len(made.ended) == SIZE + 1, "all of them")
        assert {reason for _, reason, _ in made.ended} == {CloseReason.FINISHED}


async def test_the_time_is_over() -> None:
    async with shop() as made:
        address = InsideAddress("127.0.0.1", 9, NAMESPACE, "web")
        made.stocks.open(address)
        made.connect(9, 0.01)
        await until(lambda: made.ended, "its end")
        why = "no socket of the container could be had in 0.01 s"
        assert made.ended == [(None, CloseReason.CONNECT_TIMEOUT, why)]
        assert not made.stocks._of(address).waiting


async def test_nobody_listens() -> None:
    async with shop() as made:
        port = free_port()
        made.stocks.open(InsideAddress("127.0.0.1", port, NAMESPACE, "web"))
        made.stocks.add(NAMESPACE, 4, sockets(3))
        made.connect(port)
        await until(lambda: made.ended, "its end")
        assert made.ended == [(None, CloseReason.CONNECT_FAILED, "Connection refused")]


async def test_the_container_ends(listening: socket.socket) -> None:
    async with shop() as made:
        port = listening.getsockname()[1]
        made.stocks.open(InsideAddress("127.0.0.1", port, NAMESPACE, "web"))
        made.connect(port)
        made.connect(port)
        made.stocks.add(NAMESPACE, 4, sockets(1))
        made.stocks.close(NAMESPACE)
        why = (None, CloseReason.CONNECT_FAILED, "the container has ended")
        assert made.ended == [why, why]
        made.connect(port)
        assert made.ended == [why] * 3
        made.stocks.add(NAMESPACE, 4, sockets(2))  # which were on their way


async def test_the_door_goes_without_an_answer(listening: socket.socket) -> None:
    async with shop() as made:
        address = InsideAddress("127.0.0.1", listening.getsockname()[1], NAMESPACE, "web")
        made.stocks.open(address)
        made.stocks.unanswered()
        made.stocks.open(address)
        assert len(made.asked) == 2


async def test_a_call_that_is_given_up(listening: socket.socket) -> None:
    async with shop() as made:
        port = listening.getsockname()[1]
        made.stocks.open(InsideAddress("127.0.0.1", port, NAMESPACE, "web"))
        attempt = made.connector.connect(InsideAddress("127.0.0.1", port, NAMESPACE, "web"), 5.0, made.ended.append)  # type: ignore[arg-type]
        assert attempt is not None
        attempt.cancel()
        made.stocks.add(NAMESPACE, 4, sockets(1))
        assert made.ended == []


def test_how_it_is_written() -> None:
    assert str(InsideAddress("::1", 80, 1, "web")) == "tcp:[::1]:80 in web"
