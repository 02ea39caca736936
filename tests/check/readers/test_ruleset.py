from __future__ import annotations

import json

import pytest

from proxy.check.readers import ruleset
from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import Chain, Ruleset
from proxy.demo import netns
from proxy.demo.lab import Lab
from tests.check.ground import DOCKER_DNS, Ground


def read(namespace: str) -> Ruleset:
    with netns.entered(namespace):
        found = ruleset.read()
    assert isinstance(found, Ruleset)
    return found


@pytest.mark.netns
def test_no_rules(ground: Ground) -> None:
    assert read(ground.here) == Ruleset()


@pytest.mark.netns
def test_docker_dns(ground: Ground) -> None:
    ground.nft(ground.here, DOCKER_DNS)
    assert read(ground.here) == Ruleset(
        chains=(
            Chain(table="ip nat", name="OUTPUT", kind="nat", hook="output", rules=1, packets=0),
            Chain(table="ip nat", name="POSTROUTING", kind="nat", hook="postrouting", rules=1, packets=0),
        ),
        nat=True,
        conntrack=True,
        docker_dns=True,
    )


@pytest.mark.netns
def test_a_host_with_docker(lab: Lab) -> None:
    found = read(lab.a.machine_netns)
    assert (found.nat, found.conntrack, found.docker_dns) == (True, True, False)
    assert {chain.hook for chain in found.chains} == {"prerouting", "output", "postrouting", "forward"}


@pytest.mark.netns
@pytest.mark.parametrize(
    ("rule", "nat", "conntrack"),
    [
        ("accept", False, False),
        ("ip daddr 127.0.0.11 accept", False, False),
        ("ct state established accept", False, True),
        ("notrack", False, False),
    ],
)
def test_what_needs_connections(ground: Ground, rule: str, nat: bool, conntrack: bool) -> None:
    ground.nft(ground.here, f"table ip f {{ chain o {{ type filter hook output priority raw; {rule}; }}; }}")
    found = read(ground.here)
    assert (found.nat, found.conntrack, found.docker_dns) == (nat, conntrack, False)
    assert [(chain.rules, chain.packets) for chain in found.chains] == [(1, None)]


def test_targets_of_iptables_count_as_what_they_are() -> None:
    """nft shows rules that iptables-nft made with its own targets and matches so."""
    chain = {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting"}
    rule = {"family": "ip", "table": "nat", "chain": "POSTROUTING"}
    for name, expected in (("MASQUERADE", (True, True)), ("conntrack", (False, True)), ("comment", (False, False))):
        expression = [{"xt": {"type": "target", "name": name}}, {"counter": {"packets": 3, "bytes": 9}}]
        found = ruleset.parse(json.dumps({"nftables": [{"chain": chain}, {"rule": {**rule, "expr": expression}}]}))
        assert isinstance(found, Ruleset)
        assert (found.nat, found.conntrack) == expected
        assert found.chains[0].packets == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": [{"chain": {}}, {"rule": {}}]}', '{"nftables": 7}'])
def test_what_nft_does_not_print(text: str) -> None:
    assert isinstance(ruleset.parse(text), Unchecked)
