from __future__ import annotations

import socket

import msgspec

from proxy.door.desired import SocketDirectory
from proxy.door.directories import Directories
from proxy.door.messages import NoSockets, Sockets


def test_what_differs_is_told_once() -> None:
    told: list[msgspec.Struct] = []

    def tell(message: msgspec.Struct, sockets: list[socket.socket]) -> None:
        assert sockets == []
        told.append(message)

    directories = Directories(tell)
    one, two = SocketDirectory("x", ("redis",), "shop"), SocketDirectory("y", ("redis", "db"))
    directories.become({"one": one, "two": two})
    directories.become({"one": one, "two": two})
    assert told == [Sockets("one", ["redis"], "shop"), Sockets("two", ["redis", "db"], "")] == list(directories)
    told.clear()
    directories.become({"two": SocketDirectory("y", ("db",))})
    assert told == [NoSockets("one"), Sockets("two", ["db"], "")]
    directories.become({})
    assert not list(directories)
