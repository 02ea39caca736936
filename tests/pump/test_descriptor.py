"""Who owns a descriptor closes it once, or hands it on."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from proxy.pump.descriptor import Descriptor, owner_of, socket_of
from tests.tools.sockets import open_fds


def connection() -> tuple[Descriptor, socket.socket]:
    """A descriptor's owner, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return Descriptor(ours.detach()), theirs


def test_closed_once() -> None:
    owner, theirs = connection()
    with theirs:
        number = owner.fileno()
        assert str(number) in open_fds()
        owner.close()
        assert theirs.recv(1) == b""
        assert owner.fileno() == -1
        with socket.socket() as other:  # gets the number
            owner.close()
            del owner
            assert other.getsockname()


@pytest.mark.parametrize("bound", [0, 1 << 14])
def test_a_new_one(bound: int) -> None:
    """Only a socket object can be told how much the kernel may hold."""
    ours, theirs = socket.socketpair()
    usual = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    ours.setblocking(False)
    with theirs:
        number = ours.detach()
        owner = owner_of(number, bound)
        assert owner.fileno() == number
        assert isinstance(owner, Descriptor) == (not bound)
        with closing(socket_of(owner)) as sock:
            assert (sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < usual) == (bound > 0)


def test_closed_when_nobody_has_it() -> None:
    owner, theirs = connection()
    with theirs:
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        del owner
        assert theirs.recv(1) == b""


def test_a_socket_object_takes_it_over() -> None:
    owner, theirs = connection()
    with theirs:
        number = owner.fileno()
        sock = socket_of(owner)
        assert socket_of(sock) is sock
        assert (owner.fileno(), sock.fileno(), sock.family) == (-1, number, socket.AF_UNIX)
        del owner
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.close()
        assert theirs.recv(1) == b""
