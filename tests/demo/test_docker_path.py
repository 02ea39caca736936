"""The Docker path by itself: a message passes the rules it would pass under Docker (test_lab.py sends it across)."""

from __future__ import annotations

import re
import socket

import pytest

from proxy.demo import docker_path, netns
from proxy.demo.lab import Lab

pytestmark = pytest.mark.netns


def packets(machine: str, rule: str) -> int:
    """The counter of the one rule whose text, counter apart, is this."""
    for line in netns.run(netns.inside(machine, ["nft", "list", "ruleset"])).splitlines():
        counted = re.search(r"counter packets (\d+) bytes \d+ ?", line)
        if counted and line.replace(counted.group(), "").strip() == rule:
            return int(counted.group(1))
    raise AssertionError(f"no rule {rule!r}")


def test_a_connection_is_counted_by_each_rule_on_its_way(lab: Lab) -> None:
    docker_path.publish(lab.b.machine_netns, 9000, 90)
    with netns.make_socket(lab.b.container_netns) as listener, netns.make_socket(lab.a.container_netns) as client:
        listener.bind((docker_path.CONTAINER, 90))
        listener.listen()
        client.settimeout(10)
        client.connect((lab.b.machine_address, 9000))
        accepted, _ = listener.accept()
        accepted.shutdown(socket.SHUT_RDWR)
        accepted.close()

    a, b = lab.a.machine_netns, lab.b.machine_netns
    assert packets(a, 'oifname != "docker0" ip saddr 172.17.0.0/16 masquerade') == 1
    assert packets(a, 'iifname "docker0" oifname != "docker0" accept') > 1
    assert packets(b, 'iifname != "docker0" tcp dport 9000 dnat to 172.17.0.2:90') == 1
    accept = 'ip daddr 172.17.0.2 iifname != "docker0" oifname "docker0" tcp dport 90 accept'
    assert packets(b, accept) == 1
    assert packets(b, 'oifname "docker0" ct state established,related accept') > 1


def test_a_wrong_rule_is_an_error_not_a_silent_gap(lab: Lab) -> None:
    with pytest.raises(netns.LabError, match="nft"):
        docker_path.publish(lab.b.machine_netns, 70_000, 90)
