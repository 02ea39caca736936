"""A clean host: two real proxies with a link, on macvlan interfaces, and nothing wrong with either."""

from __future__ import annotations

import pytest

from proxy.check.diagnose import diagnose
from proxy.check.readers.clock import synchronised
from proxy.demo import netns
from proxy.demo.lab import Lab
from tests.check.ground import check, names, seen
from tests.tools.mesh import Mesh
from tests.tools.servers import Echo
from tests.tools.sockets import exchange

GROUPS = [
    "path", "netfilter", "modules", "mtu", "segment", "hardware", "sysctls", "clock", "limits", "memory", "proxy",
    "sockets", "containers",
]  # fmt: skip
DELIVER = "tcp:127.0.0.1:7800"


@pytest.mark.netns
def test_a_clean_host(lab: Lab) -> None:
    """As docs/check.md wants it."""
    for host in lab.hosts:
        for setting in ("tcp_slow_start_after_idle=0", "tcp_keepalive_time=600"):
            netns.run(netns.inside(host.netns, ["sysctl", "-q", "-w", f"net.ipv4.{setting}"]))
    few = {"limits": {"streams_per_link": 1000}}
    with Echo(DELIVER, lab.b.socket()), Mesh(DELIVER, lab=lab, more=few) as mesh:
        with mesh.call() as caller:
            exchange(caller, b"hello")
            for host, proxy in ((lab.a, mesh.a), (lab.b, mesh.b)):
                report = check(host.command([]), proxy.file)
                assert names(report) == set()
                # The clock is the machine's; tests/vm/check.py has a machine that keeps it in time.
                assert names(report, "note") == (set() if synchronised() else {"clock-adrift"})
                assert "through mv0 (macvlan)" in seen(report)
                assert "not tracked: nf_conntrack_count went 0 → 0" in seen(report)
                assert "1500 bytes pass, as mv0 allows" in seen(report)
            exchange(caller, b"still there")
        assert not mesh.b.events("link refused"), "it leaves the peers' proxies alone"


@pytest.mark.netns
def test_every_subject_has_its_group(lab: Lab) -> None:
    with netns.entered(lab.a.netns):
        assert [group.name for group in diagnose(None).groups] == GROUPS


@pytest.mark.netns
def test_a_host_without_any_network(lab: Lab) -> None:
    name = f"{lab.a.netns}-none"
    netns.add(name)
    try:
        with netns.entered(name):
            assert names(diagnose(None)) == set()
    finally:
        netns.delete(name)
