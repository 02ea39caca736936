from __future__ import annotations

import socket

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab
from tests.check.ground import Ground, findings, names, seen, unseen

pytestmark = [pytest.mark.netns, pytest.mark.failure(13)]
ONLY = ("path",)


def test_a_macvlan_is_the_way(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.add("container"), "10.77.0.3/24")
    container = ground.here.replace("here", "container")
    report = ground.check(container, ground.config(listen="10.77.0.3"))
    assert names(report) == set()
    assert "10.77.0.2 (host-b) through mv0 (macvlan)" in seen(report)
    assert "10.77.0.3 is an address of mv0" in seen(report)


def test_a_bridge_although_there_is_a_macvlan(lab: Lab, ground: Ground) -> None:
    """As Docker's default network and a macvlan in one container: the route decides, not the macvlan."""
    container = lab.a.container_netns
    ground.macvlan(lab.a.machine_netns, "mv1", container, "10.77.9.1/24", below="cable0")
    try:
        report = ground.check(container, ground.config(listen="10.77.9.1", peer=lab.b.address))
    finally:
        ground.ip(container, "link delete mv1")
    finding = findings(report)["bridged-route"]
    assert finding.level == "wrong"
    assert "eth0 (veth)" in finding.read
    assert "mv1 (macvlan, 10.77.9.1/24)" in finding.read
    assert finding.mend == f"ip route replace {lab.b.address} dev mv1"


def test_a_bridge_and_nothing_else(lab: Lab, ground: Ground) -> None:
    report = ground.check(lab.a.container_netns, ground.config(listen="172.17.0.2", peer=lab.b.address))
    assert findings(report)["bridge-on-the-way"].level == "note"
    report = ground.check(lab.a.machine_netns, ground.config(listen="172.17.0.1", peer="172.17.0.9"))
    assert "docker0 (bridge)" in findings(report)["bridge-on-the-way"].read


def test_no_way_at_all(ground: Ground) -> None:
    ground.ip(ground.here, "link set eth0 down")
    report = ground.check(ground.here, ground.config(listen="10.77.0.7"))
    assert names(report) >= {"no-route", "no-link-address"}


def test_a_cable_that_is_pulled(ground: Ground) -> None:
    ground.ip(ground.there, "link set eth0 down")
    report = ground.check(ground.here, ground.config())
    assert "eth0, which is down or has no carrier" in findings(report)["interface-down"].read


def test_a_name_that_does_not_resolve(ground: Ground) -> None:
    report = ground.check(ground.here, ground.config(peer="host-b.invalid"))
    assert "host-b.invalid does not resolve" in findings(report)["unresolved-peer"].read


def test_a_peer_that_is_this_host(ground: Ground) -> None:
    ground.ip(ground.here, "address add 10.77.0.5/24 dev eth0")
    report = ground.check(ground.here, ground.config(peer="10.77.0.5"))
    assert findings(report)["peer-is-here"].level == "note"


def test_a_host_cannot_reach_its_own_macvlan_child(ground: Ground) -> None:
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    pid = ground.live(container)
    config = ground.config(services={"redis": {"deliver": "tcp:10.77.0.3:6379"}})
    finding = findings(ground.check(ground.here, config))["unreachable-child"]
    assert finding.level == "wrong"
    assert finding.where == f"process {pid} (cat)"
    assert finding.read == (
        "10.77.0.3 is a macvlan child of eth0, and the way to it is eth0, its own parent; "
        "services.redis.deliver names it"
    )
    # What the finding says is true.
    assert not ground.reaches(ground.here, "10.77.0.3")
    # What it says to do helps.
    ground.run(ground.here, finding.mend)
    assert ground.reaches(ground.here, "10.77.0.3")
    report = ground.check(ground.here, config)
    assert "unreachable-child" not in findings(report)
    assert "10.77.0.3" in seen(report)


def test_a_child_that_nobody_asked_for_is_a_note(ground: Ground) -> None:
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    ground.live(container)
    assert findings(ground.check(ground.here))["unreachable-child"].level == "note"


def test_without_a_configuration_it_says_what_is_missing(ground: Ground) -> None:
    assert "ways to peers: no peers are known; give --config FILE" in unseen(ground.check(ground.here))


def test_an_address_that_is_not_leased_yet(ground: Ground) -> None:
    links = {"address": "auto", "segment": "lan"}
    control = {"servers": ["10.77.0.2:7601"], "state_dir": str(ground.folder / "state")}
    interfaces = {"hl0": {"parent": "eth0", "addresses": ["auto"]}}
    config = ground.config(links=links, control=control, interfaces=interfaces)
    assert not names(ground.check(ground.here, config)) & {"no-link-address"}


def beside(ground: Ground) -> None:
    """mv0 has an address in eth0's subnet."""
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.3/24")
    ground.ip(ground.here, "address add fd77::1/64 dev eth0 nodad", "address add fd77::3/64 dev mv0 nodad")


@pytest.mark.failure("25")
def test_links_that_would_leave_through_the_nic(ground: Ground) -> None:
    beside(ground)
    config = ground.config(listen="10.77.0.3")
    finding = findings(ground.check(ground.here, config))["links-elsewhere"]
    assert finding.level == "wrong"
    assert finding.read.startswith(
        "a link to 10.77.0.2 leaves through eth0, and links.listen 10.77.0.3 is an address of mv0; eth0 may answer ARP"
    )
    ground.run(ground.here, finding.mend.split(" (")[0])
    report = ground.check(ground.here, config)
    assert names(report) == set()
    assert "10.77.0.2 (host-b) through mv0 (macvlan)" in seen(report)


@pytest.mark.failure("25")
@pytest.mark.parametrize(("listen", "peer"), [("10.77.0.3", "10.77.0.2"), ("fd77::3", "fd77::2")])
def test_a_link_that_leaves_through_the_nic(ground: Ground, listen: str, peer: str) -> None:
    """One that nobody has bound: of a proxy that the kernel does not let."""
    beside(ground)
    ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
    ground.ip(ground.there, "address add fd77::2/64 dev eth0 nodad")
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    ends = f"[{listen}]" if ":" in listen else listen, f"[{peer}]" if ":" in peer else peer
    config = ground.config(listen=ends[0], peer=ends[1])
    with netns.make_socket(ground.there, family) as server, netns.make_socket(ground.here, family) as link:
        server.bind((peer, 7600))
        server.listen()
        link.bind((listen, 0))
        link.connect((peer, 7600))
        finding = findings(ground.check(ground.here, config))["links-elsewhere"]
        assert finding.read == (
            f"the link to {peer} leaves through eth0, and links.listen {listen} is an address of mv0; "
            "its socket is not bound to it"
        )
        ground.run(ground.here, finding.mend.split(" (")[0])
        report = ground.check(ground.here, config)
    assert names(report) == set()
    assert f"the link to {peer} (host-b) leaves through mv0" in seen(report)


@pytest.mark.failure("25")
def test_a_link_that_is_bound(ground: Ground) -> None:
    beside(ground)
    ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
    with netns.make_socket(ground.there) as server, netns.make_socket(ground.here) as link:
        server.bind(("10.77.0.2", 7600))
        server.listen()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mv0\0")
        link.bind(("10.77.0.3", 0))
        link.connect(("10.77.0.2", 7600))
        report = ground.check(ground.here, ground.config(listen="10.77.0.3"))
    assert names(report) == set()
    assert "the link to 10.77.0.2 (host-b) leaves through mv0" in seen(report)


@pytest.mark.failure("25")
def test_no_route_through_the_interface_that_links_are_bound_to(ground: Ground) -> None:
    beside(ground)
    ground.run(ground.here, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
    ground.ip(ground.here, "route add 10.99.0.0/16 dev eth0")
    config = ground.config(listen="10.77.0.3", peer="10.99.0.2")
    finding = findings(ground.check(ground.here, config))["no-route"]
    assert finding.read == "there is no route to 10.99.0.2 through mv0, which links are bound to"
    ground.run(ground.here, finding.mend.split(" (")[0])
    assert names(ground.check(ground.here, config)) == set()


@pytest.mark.failure("32")
def test_the_file_of_a_container_on_the_host(ground: Ground) -> None:
    """Adding its address here, or asking for its peers from here, would be wrong."""
    ground.macvlan(ground.here, "mv0", container := ground.add("container"), "10.77.0.3/24")
    pid = ground.live(container)
    report = ground.check(ground.here, ground.config(listen="10.77.0.3"))
    finding = findings(report)["other-namespace"]
    assert finding.level == "note"
    assert f"process {pid}" in finding.read
    assert finding.mend == f"nsenter -t {pid} -n hostlane check --config FILE"
    assert set(findings(report)) == {"other-namespace"}


@pytest.mark.failure("32")
def test_an_address_that_nobody_here_has_is_not_to_be_added(ground: Ground) -> None:
    finding = findings(ground.check(ground.here, ground.config(listen="10.77.0.2", peer=None)))["no-link-address"]
    assert "ip address" not in finding.mend


@pytest.mark.failure("29")
def test_an_address_to_reach_a_service_from_that_nobody_here_has(ground: Ground) -> None:
    """127.0.0.2 stands on no list of addresses, and is one."""
    ground.ip(ground.here, "address add fd77::7/64 dev eth0 nodad")
    source = ["10.77.0.1", "127.0.0.2", "fd77::7", "10.77.0.99"]
    services = {"db": {"deliver": "tcp:db.internal:5432", "source": source}}
    report = ground.check(ground.here, ground.config(services=services))
    finding = findings(report)["no-source-address"]
    assert (finding.level, finding.where, finding.read) == (
        "wrong",
        "services.db.source",
        "no interface has 10.77.0.99",
    )
    assert "services.db.source 10.77.0.1 is an address of eth0" in seen(report)
    assert "services.db.source fd77::7 is an address of eth0" in seen(report)
    assert "services.db.source 127.0.0.2 is an address of lo" in seen(report)


@pytest.mark.parametrize(("listen", "version"), [("10.77.0.99", 4), ("fd77::99", 6)])
def test_an_address_that_no_interface_has_and_the_proxy_may_listen_at(
    ground: Ground, listen: str, version: int
) -> None:
    """As on the standby of two hosts that share an address."""
    config = ground.config(listen=f"[{listen}]" if version == 6 else listen, peer=None)
    assert findings(ground.check(ground.here, config))["no-link-address"].level == "wrong"
    ground.run(ground.here, f"echo 1 >/proc/sys/net/ipv{version}/ip_nonlocal_bind")
    finding = findings(ground.check(ground.here, config))["lent-link-address"]
    assert finding.level == "note"
    assert finding.read == (
        f"no interface has {listen}, and net.ipv{version}.ip_nonlocal_bind lets the proxy listen there all the same"
    )
    ground.ip(ground.here, f"address add {listen}/{64 if version == 6 else 24} dev eth0 {'nodad' * (version == 6)}")
    assert not names(ground.check(ground.here, config)) & {"no-link-address", "lent-link-address"}


def test_an_address_of_a_network_that_is_this_machine(ground: Ground) -> None:
    """It stands on no interface, and peers reach it all the same."""
    ground.ip(ground.here, "route add local 10.99.0.0/24 dev lo")
    report = ground.check(ground.here, ground.config(listen="10.99.0.7"))
    assert "links.listen 10.99.0.7 is an address of lo" in seen(report)
