"""What two questions to the kernel say, beside what iproute2 shows."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy.demo import netns
from proxy.links import rtnetlink
from proxy.links.rtnetlink import LOOPBACK, UP, NetworkView, has_route, host_network, is_local
from tests.check.ground import Ground
from tests.tools.ownnet import in_own_network
from tests.tools.sockets import eventually, fds_since, open_fds

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
    local = next(item.address for item in found.addresses if item.interface == mv0.index and ":" in item.address)
    assert found.bearers(f"{local}%{mv0.name}") == found.bearers(f"{local}%{mv0.index}") == [mv0]
    assert found.bearers(f"{local}%lo") == []
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
        eventually(lambda: is_local("fd77::1"), "the kernel has done with IPv6")
        assert all(is_local(address) for address in ("127.9.9.9", "10.77.0.1", "::1", "fd77::1"))
        assert not any(is_local(address) for address in ("10.77.0.2", "fd77::2", "10.99.0.1"))


@pytest.mark.failure("25")
def test_the_network_is_read_again_when_it_has_changed_and_only_then() -> None:
    def ip(command: str) -> None:
        subprocess.run(["ip", *command.split()], check=True)

    commands = (
        "link add v0 type veth peer name v1", "link set v0 up", "address add 10.9.0.1/24 dev v0",
        "link set v0 name v2", "address add fd00::1/64 dev v2 nodad", "link set v2 address 02:00:00:00:00:01",
        "address del 10.9.0.1/24 dev v2", "link del v2",
    )  # fmt: skip

    def work() -> list[bool]:
        with closing(NetworkView()) as view:
            found = []
            for command in commands:
                before = view.now()
                ip(command)
                found.append(view.now() is not before)
            # The kernel may have more to tell for a while: IPv6 goes down by and by.
            eventually(lambda: view.now() is view.now() and view.now() == host_network(), "nothing changes any more")
            return found

    assert in_own_network(work) == [True] * len(commands)


@pytest.mark.failure("25")
def test_more_news_than_the_kernel_keeps() -> None:
    def work() -> bool:
        batch = "address add 10.9.0.1/32 dev lo\naddress del 10.9.0.1/32 dev lo\n" * 5000
        batch += "address add 10.9.0.2/32 dev lo\n"
        with closing(NetworkView()) as view:
            before = view.now()
            subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
            after = view.now()
            return before != after == host_network() and view.now() is after

    assert in_own_network(work)


def test_one_that_is_closed_leaves_nothing_open() -> None:
    before = open_fds()
    view = NetworkView()
    assert not fds_since(before)
    view.now()
    assert len(open_fds()) == len(before) + 1
    view.close()
    view.close()
    assert not fds_since(before)


def test_without_a_descriptor_for_news_it_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(rtnetlink, "_subscribed", refuse)
    view = NetworkView()
    assert view.now() == view.now()
    assert view.now() is not view.now()
