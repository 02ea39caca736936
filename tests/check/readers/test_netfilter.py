from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.check.readers.netfilter import userland_proxy
from proxy.check.rules.netfilter import UserlandProxy
from proxy.config.schema import parse
from proxy.demo import netns
from tests.check.ground import DOCKER_DNS, Ground, check, findings, names, seen, unseen
from tests.tools.nobody import as_nobody

ONLY = ("netfilter",)

CT = "table inet filter { chain input { type filter hook input priority 0; ct state invalid counter drop; }; }"


def container_of(ground: Ground) -> str:
    """A namespace with a macvlan alone, as a container on a macvlan network."""
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    return container


@pytest.mark.netns
def test_docker_dns_rules_seen_from_inside(ground: Ground) -> None:
    container = container_of(ground)
    config = ground.config(listen="10.77.0.3")
    ground.nft(container, DOCKER_DNS)
    finding = findings(ground.check(container, config))["docker-dns-conntrack"]
    assert finding.level == "wrong"
    assert finding.where == "this namespace: mv0"
    assert finding.measured is not None
    assert "with 8 new flows to 10.77.0.2" in finding.measured
    ground.run(container, finding.mend.rpartition(": ")[2])
    report = ground.check(container, config)
    assert names(report) == set()
    assert "not tracked: nf_conntrack_count went" in seen(report)


@pytest.mark.netns
def test_docker_dns_rules_seen_from_the_host(ground: Ground) -> None:
    container = container_of(ground)
    pid = ground.live(container)
    ground.nft(container, DOCKER_DNS)
    finding = findings(ground.check(ground.here, ground.config()))["docker-dns-conntrack"]
    assert finding.where == f"process {pid} (cat): mv0"
    ground.run(ground.here, finding.mend.rpartition(": ")[2])
    assert "docker-dns-conntrack" not in findings(ground.check(ground.here, ground.config()))


@pytest.mark.netns
@pytest.mark.nobody
def test_docker_dns_rules_seen_without_privilege(ground: Ground) -> None:
    """All that a container without capabilities has to go by: the count, and its resolv.conf."""
    container = container_of(ground)
    ground.nft(container, DOCKER_DNS)
    config = ground.readable(ground.config(listen="10.77.0.3"))
    report = check(netns.inside(container, as_nobody()), config)
    assert "nf_conntrack_count went" in str(findings(report)["tracked-links"].measured)
    assert "nftables rules: no permission; ask as root" in unseen(report)
    resolver = ground.folder / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.11\n")
    inside = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    prefix = netns.inside(container, ["unshare", "-m", "sh", "-c", inside, "_", *as_nobody()])
    finding = findings(check(prefix, config))["docker-dns-conntrack"]
    assert "/etc/resolv.conf names Docker's DNS server" in finding.read


@pytest.mark.netns
def test_rules_that_need_connections(ground: Ground) -> None:
    container = container_of(ground)
    ground.nft(container, CT)
    report = ground.check(container, ground.config(listen="10.77.0.3"))
    assert findings(report)["tracked-links"].level == "wrong"
    assert "inet filter input (filter, input): 1 rules" in findings(report)["rules-on-links"].read
    ground.run(container, findings(report)["tracked-links"].mend.partition(", or")[0])
    assert "tracked-links" not in findings(ground.check(container, ground.config(listen="10.77.0.3")))


@pytest.mark.netns
def test_without_a_macvlan_tracking_is_a_note(ground: Ground) -> None:
    ground.nft(ground.here, CT)
    report = ground.check(ground.here, ground.config())
    assert findings(report)["tracked-links"].level == "note"
    assert names(report) == set()


@pytest.mark.netns
def test_a_bridge_as_parent(ground: Ground) -> None:
    """bridge-nf-call-iptables is a setting of the namespace that the bridge is in."""
    ground.ip(ground.here, "link add br0 type bridge", "link set eth0 master br0", "link set br0 up")
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.8.1/24", below="br0")
    ground.run(ground.here, "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    finding = findings(ground.check(ground.here))["bridge-parent-rules"]
    assert (finding.level, finding.where) == ("wrong", "mv0")
    ground.run(ground.here, finding.mend.partition(",")[0])
    report = ground.check(ground.here)
    assert "bridge-parent-rules" not in findings(report)
    assert "mv0 hangs on bridge br0, whose frames pass no IP rules" in seen(report)


@pytest.mark.netns
def test_a_bridge_as_parent_of_a_container(ground: Ground) -> None:
    container = ground.add("container")
    ground.ip(ground.here, "link add br0 type bridge", "link set br0 up")
    ground.macvlan(ground.here, "mv0", container, "10.77.8.1/24", below="br0")
    pid = ground.live(container)
    ground.run(ground.here, "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
    assert findings(ground.check(ground.here))["bridge-parent-rules"].where == f"mv0 (process {pid} (cat))"


WORDS = [
    "docker-proxy",
    "-proto",
    "tcp",
    "-host-ip",
    "0.0.0.0",
    "-host-port",
    "8080",
    "-container-ip",
    "172.18.0.2",
    "-container-port",
    "8000",
]
"""The command line of a real one (Docker 26.1)."""


def test_a_docker_proxy() -> None:
    text = "host: a\nlinks: {listen: 10.0.0.1:7600, security: none}\nservices: {web: {deliver: 'tcp:127.0.0.1:8080'}}\n"
    found = userland_proxy(7, WORDS, parse(text, "a.yaml"))
    assert found == UserlandProxy(
        pid=7, published="0.0.0.0:8080", target="172.18.0.2:8000", wanted_by=("services.web.deliver",)
    )
    assert userland_proxy(7, WORDS, None).wanted_by == ()
    six = [{"0.0.0.0": "::", "172.18.0.2": "fd00::2"}.get(word, word) for word in WORDS]
    found = userland_proxy(8, six, parse(text, "a.yaml"))
    assert (found.published, found.target, found.wanted_by) == ("[::]:8080", "[fd00::2]:8000", ())
    with pytest.raises(ValueError):
        userland_proxy(7, ["docker-proxy", "-version"], None)


@pytest.mark.netns
def test_a_docker_proxy_that_runs(ground: Ground) -> None:
    code = "import sys; open('/proc/self/comm', 'w').write('docker-proxy'); print(flush=True); sys.stdin.read()"
    config = ground.config(services={"web": {"deliver": "tcp:127.0.0.1:8080"}})
    with subprocess.Popen(
        netns.inside(ground.here, [sys.executable, "-c", code, *WORDS]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        finding = findings(ground.check(ground.here, config))["docker-proxy"]
        assert "docker-proxy" not in findings(ground.check(ground.there, config)), "it is another host's"
        process.communicate()
    assert finding.level == "wrong"
    assert finding.read == (
        f"docker-proxy, process {process.pid}, forwards 0.0.0.0:8080 to 172.18.0.2:8000; "
        "services.web.deliver goes through it"
    )
