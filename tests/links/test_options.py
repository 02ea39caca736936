from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator

import pytest

from proxy.links.options import NOTSENT_LOWAT, USER_TIMEOUT, bound_link, prepare_link

SIOCOUTQNSD = 0x894B  # bytes of the send queue that were never sent (linux/sockios.h)


def connected(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        return client, listener.accept()[0]


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["ipv4", "ipv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    try:
        one, other = connected(*request.param)
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    with one, other:
        yield one, other


def unsent(sock: socket.socket) -> int:
    """Bytes that the kernel keeps for this socket and has not put on the way."""
    return int(struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)))[0])


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; returns the bytes that it took."""
    sock.setblocking(False)
    taken = 0
    while True:
        try:
            taken += sock.send(bytes(65536))
        except BlockingIOError:
            return taken


def test_dialled_and_accepted_links_get_the_same(pair: tuple[socket.socket, socket.socket]) -> None:
    wanted = {
        (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT): NOTSENT_LOWAT,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): USER_TIMEOUT * 1000,
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 10,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 5,
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 2,
    }
    for sock in pair:
        for _ in range(2):
            prepare_link(sock)
            assert {option: sock.getsockopt(*option) for option in wanted} == wanted


def test_keepalive_and_user_timeout_agree(pair: tuple[socket.socket, socket.socket]) -> None:
    prepare_link(pair[0])
    idle, interval, probes = (
        pair[0].getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * probes == USER_TIMEOUT


@pytest.mark.failure(4, 19)
def test_little_unsent_bulk_is_in_the_way_of_a_small_message(pair: tuple[socket.socket, socket.socket]) -> None:
    """Whatever the reader does: the kernel may add the piece that it is filling (64 KiB), but no more."""
    link, _stalled = pair
    prepare_link(link)
    assert fill(link) > NOTSENT_LOWAT
    assert unsent(link) <= NOTSENT_LOWAT + 65536


def test_the_kernels_own_tuning_of_buffers_stays_on(pair: tuple[socket.socket, socket.socket]) -> None:
    before = [pair[0].getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    prepare_link(pair[0])
    after = [pair[0].getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    assert before == after


@pytest.mark.failure("33")
@pytest.mark.parametrize("size", [128 << 10, 256 << 10])
def test_the_kernel_holds_no_more_of_a_link_than_it_is_told(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    """Neither of what the peer does not acknowledge, nor of what we do not read."""
    link, peer = pair
    prepare_link(link)
    bound_link(link, size)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        assert link.getsockopt(socket.SOL_SOCKET, option) == size
    assert fill(peer) <= size + peer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_a_link_is_tcp() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(OSError):
        prepare_link(one)
