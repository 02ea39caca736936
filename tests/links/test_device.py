"""Which interface links are bound to. On real machines: tests/system/test_own_interface.py."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from proxy.config.netvalues import ANY, AUTO
from proxy.errors import HandshakeError
from proxy.links.device import LinkDevice, LinkWay, arp_ignore, choose
from proxy.links.rtnetlink import LOOPBACK, NO_ARP, UP, HostInterface, HostNetwork, InterfaceAddress

pytestmark = pytest.mark.failure("25")

LO = HostInterface(1, "lo", flags=UP | LOOPBACK)
ETH0 = HostInterface(2, "eth0", flags=UP)
MV0 = HostInterface(3, "mv0", "macvlan", UP, 2)
MV1 = HostInterface(4, "mv1", "macvlan", UP, 2)
DUMMY = HostInterface(5, "dummy0", "dummy", UP | NO_ARP)
ETH1 = HostInterface(6, "eth1", flags=UP)
FAR = HostInterface(7, "far", "macvlan", UP, 0)


def network(*interfaces: HostInterface, **addresses: str) -> HostNetwork:
    """``mv0="10.0.0.1/24 fd00::1/64"``."""
    index = {found.name: found.index for found in interfaces}
    return HostNetwork(
        {found.index: found for found in interfaces},
        tuple(
            InterfaceAddress(index[name], *(word.partition("/")[0], int(word.partition("/")[2])))
            for name, words in addresses.items()
            for word in words.split()
        ),
    )


def chosen(found: HostNetwork, listen: str = "10.0.0.1", wanted: str = AUTO, quiet: tuple[str, ...] = ()) -> LinkWay:
    return choose(found, listen, wanted, lambda name: int(name in quiet))


@pytest.mark.parametrize(
    ("found", "listen", "wanted", "expected"),
    [
        (network(LO, ETH0, eth0="10.0.0.1/24"), "10.0.0.1", AUTO, ""),
        (network(LO, ETH0, ETH1, MV0, eth0="10.0.0.1/24", eth1="10.0.0.9/24"), "10.0.0.1", AUTO, ""),
        (network(LO, ETH0, eth0="10.0.0.1/24"), "10.0.0.1", "eth0", "eth0"),
        (network(LO, ETH0, FAR, far="10.0.0.1/24", eth0="10.1.0.1/24"), "10.0.0.1", AUTO, "far"),
        (network(LO, ETH0, MV0, mv0="fd00::1/64", eth0="fd00::2/64"), "fd00::1", AUTO, "mv0"),
        (network(LO, ETH0, lo="127.0.0.1/8", eth0="10.0.0.1/24"), "127.0.0.1", AUTO, ""),
        (network(LO, ETH0, lo="10.9.9.9/32", eth0="10.0.0.1/24"), "10.9.9.9", AUTO, ""),
        (network(LO, ETH0, DUMMY, dummy0="10.9.9.9/32"), "10.9.9.9", AUTO, ""),
        (network(LO, ETH0, eth0="10.0.0.1/24"), "0.0.0.0", AUTO, ""),
        (network(LO, ETH0, eth0="10.0.0.1/24"), "10.0.0.1", ANY, ""),
        (network(LO, ETH0, eth0="10.0.0.1/24"), "0.0.0.0", "eth0", "eth0"),
    ],
)
def test_the_interface_that_has_the_address(found: HostNetwork, listen: str, wanted: str, expected: str) -> None:
    way = chosen(found, listen, wanted)
    assert (way.device, way.why, way.missing) == (expected, "", False)


@pytest.mark.parametrize(
    ("found", "wanted", "lax"),
    [
        (network(LO, ETH0, MV0, mv0="10.0.0.1/24"), AUTO, ("eth0",)),
        (network(LO, ETH0, MV0, mv0="10.0.0.1/24", eth0="10.0.0.9/24"), AUTO, ("eth0",)),
        (network(LO, ETH0, MV0, MV1, mv0="10.0.0.1/24", mv1="10.5.0.1/24"), AUTO, ("eth0", "mv1")),
        (network(LO, ETH0, MV1, eth0="10.0.0.1/24"), "eth0", ("mv1",)),
        (network(LO, ETH0, ETH1, eth0="10.0.0.1/24", eth1="10.0.0.9/24"), "eth0", ("eth1",)),
    ],
)
def test_not_while_others_answer_for_it(found: HostNetwork, wanted: str, lax: tuple[str, ...]) -> None:
    way = chosen(found, wanted=wanted)
    assert way.device == ""
    assert way.why == f"{', '.join(lax)} may answer ARP for it too"
    assert way.mend.startswith(f"sysctl -w net.ipv4.conf.{lax[0]}.arp_ignore=1 ")
    assert chosen(found, wanted=wanted, quiet=lax).device != "", "and as soon as they do not"


@pytest.mark.parametrize(
    ("listen", "wanted", "why"),
    [
        ("10.0.0.7", AUTO, "no interface has that address"),
        ("10.0.0.1", "eth9", "there is no interface eth9"),
        ("10.0.0.1", "eth1", "eth1 does not have 10.0.0.1"),
    ],
)
def test_one_that_is_not_there(listen: str, wanted: str, why: str) -> None:
    way = chosen(network(LO, ETH0, ETH1, eth0="10.0.0.1/24"), listen, wanted)
    assert (way.device, way.why, way.missing) == ("", why, True)


def test_a_dial_from_an_address_that_nobody_has_says_so() -> None:
    with capture_logs() as logs, pytest.raises(HandshakeError) as caught:
        LinkDevice("192.0.2.77").way()
    assert str(caught.value) == "links leave from 192.0.2.77, and no interface has that address"
    assert logs == [], "it has never been there"


def test_a_socket_on_an_interface_that_is_gone_says_which() -> None:
    device = LinkDevice("10.0.0.1")
    with socket.socket() as sock, pytest.raises(HandshakeError) as caught:
        device.bind(sock, LinkWay(HostInterface(99, "hl-never")))
    assert str(caught.value) == "links leave from 10.0.0.1, and hl-never, which had it, is gone"


def test_settings_that_cannot_be_read_count_as_the_kernels() -> None:
    assert arp_ignore("hl-never") >= 0
