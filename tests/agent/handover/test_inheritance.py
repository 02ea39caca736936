"""Sockets that were got from another process, until somebody takes them."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.base.reading.addresses import TcpAddress
from control.base.system.unixsock import BoundUnixSocket, bind_unix
from proxy.agent.handover.inheritance import ADMIN, LINKS, UPSTREAM, InheritedListeners
from proxy.outbound.sockets import InheritableListener
from tests.tools.sockets import connect, names


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl-") as found:
        yield Path(found)


def inheritable(bound: BoundUnixSocket) -> InheritableListener:
    """What another process would get."""
    return InheritableListener(bound.socket.dup(), os.dup(bound.lock), bound.birth)


def test_sockets_by_what_they_are_for(folder: Path) -> None:
    inheritance = InheritedListeners()
    address = TcpAddress("127.0.0.1", 7600)
    one, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    with one, other:
        inheritance.put(LINKS, address.hostport, InheritableListener(one))
        inheritance.put(UPSTREAM, str(address), InheritableListener(other))
        assert inheritance.links(TcpAddress("127.0.0.1", 7601)) is None
        assert inheritance.upstreams() == {address: InheritableListener(other)}
        assert inheritance.upstreams() == {}
        assert inheritance.links(address) is one
        assert inheritance.links(address) is None, "it was taken"
        inheritance.close()
        assert one.fileno() >= 0


def test_the_first_one_stays() -> None:
    inheritance = InheritedListeners()
    one, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    inheritance.put(LINKS, "a:1", InheritableListener(one))
    inheritance.put(LINKS, "a:1", InheritableListener(other))
    assert (one.fileno() >= 0, other.fileno()) == (True, -1)
    inheritance.close()
    assert one.fileno() == -1


def test_a_socket_changes_hands(folder: Path) -> None:
    """Neither end takes the file away as long as it is not its own; both hold the lock."""
    path = f"{folder}/admin.sock"
    old, inheritance = bind_unix(path), InheritedListeners()
    inheritance.put(ADMIN, f"unix:{path}", inheritable(old))
    new = inheritance.unix(ADMIN, path, 0o660)
    old.own(False)
    old.close()
    connect(path).close()
    new.close()
    assert names(folder) == [".admin.sock.lock", "admin.sock"], "nobody's for a moment: as after a crash"
    with bind_unix(path):
        connect(path).close()


def test_it_is_ours_when_we_own_it(folder: Path) -> None:
    path = f"{folder}/admin.sock"
    old, inheritance = bind_unix(path), InheritedListeners()
    inheritance.put(ADMIN, f"unix:{path}", inheritable(old))
    new = inheritance.unix(ADMIN, path, 0o660)
    old.own(False)
    old.close()
    assert Path(path).stat().st_mode & 0o777 == 0o666, "it is not ours to change yet"
    inheritance.own()
    assert Path(path).stat().st_mode & 0o777 == 0o660
    new.close()
    assert names(folder) == []


def test_without_one_a_new_one_is_made(folder: Path) -> None:
    inheritance = InheritedListeners()
    inheritance.unix(ADMIN, f"{folder}/admin.sock", 0o660).close()
    # Of systemd: it has no lock, so it cannot be one that we make.
    inheritance.put(ADMIN, f"unix:{folder}/admin.sock", InheritableListener(socket.create_server(("127.0.0.1", 0))))
    with inheritance.unix(ADMIN, f"{folder}/admin.sock", 0o660):
        assert names(folder) == [".admin.sock.lock", "admin.sock"]
