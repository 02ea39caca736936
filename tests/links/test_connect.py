"""A dial's TCP connection through an interface, on real ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.config.netvalues import AUTO
from proxy.demo import netns
from proxy.errors import HandshakeError
from proxy.links.connect import connect
from proxy.links.device import LinkDevice
from proxy.links.listening import LinkListeners, bound_to
from tests.check.ground import Ground
from tests.tools.sockets import PATIENCE, fds_since, open_fds

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


def dialled(ground: Ground, listen: str, target: TcpAddress, wanted: str = "eth0") -> tuple[str, str]:
    """The interface and the address that a dial from `here` is bound to."""

    async def dial() -> tuple[str, str]:
        async with await connect(target, LinkDevice(listen, wanted)) as stream:
            return bound_to(stream.socket), stream.socket.getsockname()[0]

    with netns.entered(ground.here):
        return trio.run(dial)


def test_it_is_bound_to_interface_and_address(ground: Ground) -> None:
    with netns.make_socket(ground.there) as server:
        server.bind(("10.77.0.2", 0))
        server.listen()
        target = TcpAddress(*server.getsockname())
        before = open_fds()
        assert dialled(ground, "10.77.0.1", target) == ("eth0", "10.77.0.1")
        assert dialled(ground, "0.0.0.0", target, AUTO) == ("", "10.77.0.1")
        assert not fds_since(before)


def test_also_where_sockets_may_have_addresses_of_others(ground: Ground) -> None:
    """As keepalived and haproxy want it."""
    ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind")
    with netns.make_socket(ground.there) as server:
        server.bind(("10.77.0.2", 0))
        server.listen()
        assert dialled(ground, "10.77.0.1", TcpAddress(*server.getsockname())) == ("eth0", "10.77.0.1")


def test_with_the_address_of_a_nic_other_interfaces_carry_links_too(ground: Ground) -> None:
    """A container on a bridge of this host, which has the address of the host's NIC in its configuration."""
    ground.ip(ground.here, f"link add br0 type veth peer name br0 netns {ground.there}")
    for name, number in ((ground.here, 1), (ground.there, 2)):
        ground.ip(name, f"address add 172.17.0.{number}/16 dev br0")
        ground.ip(name, "link set br0 up")
    ground.ip(ground.there, "route add 10.77.0.1/32 dev br0")

    async def listen() -> socket.socket:
        listeners = LinkListeners(TcpAddress("10.77.0.1", 0), LinkDevice("10.77.0.1"))
        listeners.open()
        (listener,) = listeners.all
        return socket.socket(fileno=listener.socket.detach())

    with netns.entered(ground.here):
        listening = trio.run(listen)
    with listening, netns.make_socket(ground.there) as caller, netns.make_socket(ground.there) as server:
        caller.bind(("172.17.0.2", 0))
        caller.settimeout(PATIENCE)
        caller.connect(listening.getsockname())
        server.bind(("172.17.0.2", 0))
        server.listen()
        assert dialled(ground, "10.77.0.1", TcpAddress(*server.getsockname()), AUTO) == ("", "10.77.0.1")


def test_so_it_is_with_ipv6(ground: Ground) -> None:
    for name, address in ((ground.here, "fd77::1/64"), (ground.there, "fd77::2/64")):
        ground.ip(name, f"address add {address} dev eth0 nodad")
    with netns.make_socket(ground.there, socket.AF_INET6) as server:
        server.bind(("fd77::2", 0))
        server.listen()
        assert dialled(ground, "fd77::1", TcpAddress(*server.getsockname()[:2])) == ("eth0", "fd77::1")


def test_this_host_itself_is_reached_through_lo(ground: Ground) -> None:
    ground.ip(ground.here, "address add 10.77.0.9/24 dev eth0")
    with netns.make_socket(ground.here) as server:
        server.bind(("10.77.0.9", 0))
        server.listen()
        assert dialled(ground, "10.77.0.1", TcpAddress(*server.getsockname())) == ("", "10.77.0.1")


@pytest.mark.parametrize(
    ("peer", "complaint"),
    [
        ("10.77.0.2", "Connection refused (through eth0)"),
        ("10.99.0.2", "no route to 10.99.0.2 through eth0, which links are bound to: ip route add 10.99.0.2 dev eth0"),
        ("fd77::2", "fd77::2 has no address of the IP version of 10.77.0.1"),
    ],
)
def test_what_goes_wrong_names_the_interface(ground: Ground, peer: str, complaint: str) -> None:
    before = open_fds()
    with pytest.raises(OSError, match=r".") as caught:
        dialled(ground, "10.77.0.1", TcpAddress(peer, 9))
    assert (caught.value.strerror or str(caught.value)).startswith(complaint)
    assert not fds_since(before)


def test_an_interface_that_is_gone(ground: Ground) -> None:
    with pytest.raises(HandshakeError, match="no interface has that address"):
        dialled(ground, "10.77.0.77", TcpAddress("10.77.0.2", 9), AUTO)
