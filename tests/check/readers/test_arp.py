from __future__ import annotations

import selectors
import socket

import pytest

from proxy.check.readers.arp import ArpRequest, ArpSighting, _listen, ask, claim, packet
from proxy.check.report import Unchecked
from proxy.demo import netns
from tests.check.ground import Ground

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
QUESTION = ArpRequest("eth0", MAC, "10.77.0.1", "10.77.0.2")


def test_a_request_byte_by_byte() -> None:
    """RFC 826, and the zero sender of a probe (RFC 5227, 2.1.1)."""
    assert packet(QUESTION).hex() == (
        "0001" "0800" "06" "04" "0001" "020000000001" "0a4d0001" "000000000000" "0a4d0002"
    )  # fmt: skip
    assert packet(QUESTION._replace(sender="0.0.0.0"))[14:18] == bytes(4)


def test_who_a_packet_is_from() -> None:
    data = packet(QUESTION)
    assert claim(data) == ("10.77.0.1", MAC)
    assert claim(data + bytes(18)) == ("10.77.0.1", MAC), "Ethernet fills short frames up"
    assert claim(data[:-1]) is None
    assert claim(packet(QUESTION._replace(sender="0.0.0.0"))) is None, "a probe claims nothing yet"
    assert claim(b"\0\6" + data[2:]) is None, "not Ethernet"


def test_an_answer_that_is_read_late_counts() -> None:
    """The kernel had it in time; this process had no core."""
    wire, sock = socket.socketpair(type=socket.SOCK_DGRAM)
    with wire, sock, selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ, "eth0")
        wire.send(packet(QUESTION))
        assert _listen(selector, {"10.77.0.1"}, 0) == {ArpSighting("eth0", "10.77.0.1", MAC)}
        assert _listen(selector, {"10.77.0.1"}, 0) == set()


@pytest.mark.netns
def test_a_machine_answers_for_its_address(ground: Ground) -> None:
    for name, mac in ((ground.here, MAC), (ground.there, OTHER)):
        ground.ip(name, f"link set eth0 address {mac}")
    with netns.entered(ground.here):
        assert ask([QUESTION]) == {ArpSighting("eth0", "10.77.0.2", OTHER)}
        assert ask([QUESTION._replace(target="10.77.0.9")]) == set()


@pytest.mark.netns
def test_an_interface_that_is_gone(ground: Ground) -> None:
    with netns.entered(ground.here):
        found = ask([QUESTION._replace(interface="eth7")])
    assert found == Unchecked("addresses that exist twice, by ARP probes", "no such device")
