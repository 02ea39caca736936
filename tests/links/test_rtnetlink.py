"""What two questions to the kernel say, beside what iproute2 shows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from proxy.demo import netns
from proxy.links.rtnetlink import LOOPBACK, UP, has_route, host_network, is_local
from tests.check.ground import Ground

pytestmark = pytest.mark.netns


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


@pytest.mark.failure("25")
def test_it_sees_what_ip_shows(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.3/24")
    ground.macvlan(ground.here, "far", ground.there, "10.77.0.4/24")
    ground.ip(ground.here, "address add fd77::3/64 dev mv0 nodad", "address add 10.9.0.1 peer 10.9.0.2/32 dev eth0")
    shown = json.loads(netns.run(["ip", "-n", ground.here, "-j", "-d", "address"]))
    with netns.entered(ground.here):
        found = host_network()
    assert {(item.index, item.name) for item in found.interfaces.values()} == {
        (item["ifindex"], item["ifname"]) for item in shown
    }
    assert {(item.interface, item.address, item.prefix) for item in found.addresses} == {
        (link["ifindex"], item["local"], item["prefixlen"]) for link in shown for item in link["addr_info"]
    }
    eth0, mv0, lo = (found.named(name) for name in ("eth0", "mv0", "lo"))
    assert eth0 is not None
    assert mv0 is not None
    assert lo is not None
    assert (mv0.kind, mv0.parent) == ("macvlan", eth0.index)
    assert lo.flags & LOOPBACK
    assert eth0.flags & UP
    assert found.bearers("10.77.0.3") == [mv0]
    assert found.bearers("10.77.0.99") == []
    with netns.entered(ground.there):
        far = host_network().named("far")
    assert far is not None
    assert (far.kind, far.parent) == ("macvlan", 0), "its parent is in another namespace"


@pytest.mark.parametrize(
    ("address", "source", "interface", "expected"),
    [
        ("10.77.0.2", "10.77.0.3", "mv0", True),
        ("10.77.0.2", None, "mv0", True),
        ("10.99.0.1", None, "mv0", False),
        ("10.99.0.1", "10.77.0.1", "eth0", True),
        ("fd77::9", "fd77::3", "mv0", True),
        ("fd99::9", "fd77::3", "mv0", False),
    ],
)
def test_a_route_goes_through_an_interface_or_not(
    ground: Ground, address: str, source: str | None, interface: str, expected: bool
) -> None:
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.3/24")
    ground.ip(ground.here, "address add fd77::3/64 dev mv0 nodad", "route add default via 10.77.0.2 dev eth0")
    with netns.entered(ground.here):
        found = host_network().named(interface)
        assert found is not None
        assert has_route(address, source, found.index) == expected


@pytest.mark.failure("25")
def test_what_never_leaves_this_host(ground: Ground) -> None:
    """Whatever sockets can be bound to."""
    ground.run(ground.here, "for ip in 4 6; do echo 1 > /proc/sys/net/ipv$ip/ip_nonlocal_bind; done")
    ground.ip(ground.here, "address add fd77::1/64 dev eth0 nodad")
    with netns.entered(ground.here):
        assert all(is_local(address) for address in ("127.9.9.9", "10.77.0.1", "::1", "fd77::1"))
        assert not any(is_local(address) for address in ("10.77.0.2", "fd77::2", "10.99.0.1"))
