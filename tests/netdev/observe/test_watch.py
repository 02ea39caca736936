"""What makes the watch look, in a namespace of its own, and what a look finds."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from proxy.demo import netns
from proxy.netdev.observe import watch as module
from proxy.netdev.observe.watch import AddressLook, look, open_watch, watch

pytestmark = pytest.mark.failure("21c")


def ip(space: str, *commands: str) -> None:
    for command in commands:
        netns.run(["ip", "-n", space, *command.split()])


@pytest.fixture
def sock(space: str) -> Iterator[socket.socket]:
    with netns.entered(space):
        found = open_watch()
    with found:
        yield found


@asynccontextmanager
async def watched(sock: socket.socket) -> AsyncIterator[trio.MemoryReceiveChannel[None]]:
    """Something comes out for each look."""
    send, receive = trio.open_memory_channel[None](1000)

    async def changed() -> None:
        send.send_nowait(None)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, sock, changed)
            yield receive
            nursery.cancel_scope.cancel()


@pytest.mark.netns
async def test_what_makes_it_look(space: str, sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    module._empty(sock)
    async with watched(sock) as looks:
        for change in (
            "addr add 10.9.0.1/24 dev eth0",
            "addr delete 10.9.0.1/24 dev eth0",
            "addr add fd00::1/64 dev eth0 nodad",
            "addr delete fd00::1/64 dev eth0",
            "link add mv0 link eth0 type macvlan",
            "link delete mv0",
        ):
            while looks.statistics().current_buffer_used:  # one change is several messages
                looks.receive_nowait()
            ip(space, change)
            await looks.receive()


@pytest.mark.netns
async def test_many_changes_are_few_looks(space: str, sock: socket.socket) -> None:
    module._empty(sock)
    async with watched(sock) as looks:
        ip(space, "addr add 10.9.0.1/24 dev eth0")
        await looks.receive()
        ip(space, *(f"addr add 10.9.0.{number}/24 dev eth0" for number in range(2, 30)))
        await looks.receive()
        assert looks.statistics().current_buffer_used == 0


@pytest.mark.netns
async def test_messages_that_were_lost_are_one(space: str, sock: socket.socket) -> None:
    """ENOBUFS: nobody says what has changed, so it looks."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    ip(space, *(f"addr add 10.9.0.{number}/24 dev eth0" for number in range(1, 30)))
    with sock.dup() as other, pytest.raises(OSError, match="No buffer space") as caught:
        while True:
            other.recv(1)
    assert caught.value.errno == errno.ENOBUFS
    ip(space, "addr flush dev eth0")
    async with watched(sock) as looks:
        await looks.receive()


@pytest.mark.netns
def test_a_look(space: str) -> None:
    ip(space, "link set lo up", "addr add 10.9.0.1/24 dev eth0", "addr add fd00::1/64 dev eth0 nodad")
    ip(space, "route add local 10.8.0.0/24 dev lo")
    bound = ["10.9.0.1", "fd00::1", "127.0.0.9", "10.8.0.7", "10.9.0.2", "fd00::2"]
    with netns.entered(space):
        found = look(bound)
    assert found.held >= {"10.9.0.1", "fd00::1", "127.0.0.1", "::1"}
    assert found.missing == {"10.9.0.2", "fd00::2"}
    ip(space, "addr delete 10.9.0.1/24 dev eth0", "link delete eth0")
    with netns.entered(space):
        assert look(bound).missing == {"10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2"}


def test_nothing_is_asked_for() -> None:
    assert look([]) == AddressLook(look([]).held, frozenset())


@pytest.mark.failure("33")
def test_a_look_costs_no_proxy_nine_megabytes() -> None:
    """Containers that come and go make every proxy of their host look."""
    code = "import sys; from proxy.netdev.observe.watch import look; look([]); print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
