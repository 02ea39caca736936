from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from control.base.reading.addresses import TcpAddress
from proxy.demo import netns
from proxy.door.namespaces import NoNamespace, cookie_of, identity, listeners, own_cookie, sockets, visit
from tests.door.conftest import DIRECTORY
from tests.tools.sockets import fds_since, open_fds


@pytest.mark.netns
def test_listeners_inside_another_namespace(namespace: Callable[[], str]) -> None:
    name = namespace()
    path = f"{DIRECTORY}/{name}"
    wanted = [TcpAddress("127.77.0.2", 6379), TcpAddress("::1", 80), TcpAddress("10.9.9.9", 1)]
    cookie, found = visit(path, lambda: listeners(wanted))
    assert cookie != own_cookie()
    failed = found[wanted[2]]
    assert isinstance(failed, OSError)
    assert failed.errno == errno.EADDRNOTAVAIL
    for address in wanted[:2]:
        sock = found[address]
        assert isinstance(sock, socket.socket)
        assert cookie_of(sock) == cookie
        with sock, netns.make_socket(name, sock.family) as caller:
            caller.connect((address.host, address.port))
            sock.accept()[0].close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.77.0.2", 6379))


@pytest.mark.netns
def test_an_address_that_is_taken(namespace: Callable[[], str]) -> None:
    name = namespace()
    with netns.entered(name), socket.create_server(("0.0.0.0", 6379)):
        _, found = visit(f"{DIRECTORY}/{name}", lambda: listeners([TcpAddress("127.77.0.2", 6379)]))
    [failed] = found.values()
    assert isinstance(failed, OSError)
    assert failed.errno == errno.EADDRINUSE


@pytest.mark.netns
def test_sockets_that_reach_a_service_inside(namespace: Callable[[], str]) -> None:
    name = namespace()
    before = open_fds()
    with netns.entered(name):
        service = socket.create_server(("127.0.0.1", 6379))
    with service:
        cookie, made = visit(f"{DIRECTORY}/{name}", lambda: sockets(4, 3))
        assert [cookie_of(sock) for sock in made] == [cookie] * 3
        for sock in made:
            with sock:
                sock.setblocking(True)
                sock.connect(("127.0.0.1", 6379))
    _, [six] = visit(f"{DIRECTORY}/{name}", lambda: sockets(6, 1))
    assert six.family == socket.AF_INET6
    six.close()
    assert not fds_since(before)


def test_a_namespace_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NoNamespace, match=f"{tmp_path}/x: No such file or directory"):
        visit(f"{tmp_path}/x", own_cookie)
    assert identity(f"{tmp_path}/x") is None


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(NoNamespace, match="mounted ro,rslave"):
        visit(f"{tmp_path}/x", own_cookie)


@pytest.mark.netns
def test_what_it_raises_inside(namespace: Callable[[], str]) -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        visit(f"{DIRECTORY}/{namespace()}", fail)


@pytest.mark.netns
def test_a_namespace_is_known_again(namespace: Callable[[], str]) -> None:
    one, two = namespace(), namespace()
    assert identity(f"{DIRECTORY}/{one}") == identity(f"{DIRECTORY}/{one}") != identity(f"{DIRECTORY}/{two}")
    netns.delete(one)
    assert identity(f"{DIRECTORY}/{one}") is None
