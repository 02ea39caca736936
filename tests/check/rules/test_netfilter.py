from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import (
    BridgeParent,
    Chain,
    ContainerNamespace,
    NetfilterFacts,
    Ruleset,
    TrackingMeasurement,
    UserlandProxy,
    judge,
)
from tests.check.rules.lines import findings, only, seen, unseen

NO_RULES = Unchecked("nftables rules", "ask as root")
DNS = Ruleset(nat=True, conntrack=True, docker_dns=True)


def tracking(*deltas: int) -> TrackingMeasurement:
    return TrackingMeasurement(to="10.0.0.2", flows=8, counts=tuple((100, 100 + delta) for delta in deltas))


def here(
    ruleset: Ruleset | Unchecked = NO_RULES,
    *,
    deltas: tuple[int, ...] = (0, 0, 0),
    macvlan: bool = True,
    resolver: bool = False,
) -> NetfilterFacts:
    interfaces = ("mv0",) if macvlan else ()
    return NetfilterFacts(
        here=ContainerNamespace(
            label="here", enter="", interfaces=interfaces, ruleset=ruleset, tracking=(tracking(*deltas),),
            docker_resolver=resolver,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deltas", "on"),
    [
        ((8, 8, 8), True),
        ((8, 9, 20), True),
        ((8, -3, 9), True),
        ((0, 0, 0), False),
        ((8, 0, 1), False),
        ((7, 7, 7), False),
        ((-5, 2, 0), False),
    ],
)
def test_most_rounds_decide(deltas: tuple[int, ...], on: bool) -> None:
    assert tracking(*deltas).on is on


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (here(), []),
        (here(deltas=(8, 8, 8)), [("tracked-links", "wrong")]),
        (here(deltas=(8, 8, 8), macvlan=False), [("tracked-links", "note")]),
        (here(deltas=(8, 8, 8), resolver=True), [("docker-dns-conntrack", "wrong")]),
        (here(deltas=(8, 8, 8), resolver=True, macvlan=False), [("tracked-links", "note")]),
        (here(resolver=True), []),
        (here(DNS), [("docker-dns-conntrack", "wrong")]),
        (here(DNS, macvlan=False), []),
        (here(Ruleset(), deltas=(8, 8, 8), resolver=True), [("tracked-links", "wrong")]),
    ],
    ids=["off", "on", "no macvlan", "resolver", "resolver, no macvlan", "resolver alone", "rules", "rules, no macvlan",
         "other rules"],
)  # fmt: skip
def test_connection_tracking(facts: NetfilterFacts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def test_a_container_seen_from_the_host() -> None:
    container = ContainerNamespace(
        label="container 0123456789ab", enter="nsenter -t 7 -n ", interfaces=("eth0",), ruleset=DNS, count=5
    )
    found = only(judge(NetfilterFacts(here=here().here, others=(container,))))
    assert found.where == "container 0123456789ab: eth0"
    assert found.measured == "nf_conntrack_count there is 5"
    assert found.mend.endswith("nsenter -t 7 -n nft delete table ip nat")


def test_what_could_not_be_measured() -> None:
    namespace = ContainerNamespace(
        label="here", enter="", interfaces=("mv0",), ruleset=NO_RULES, tracking=(Unchecked("nf_conntrack_count", "no"),)
    )
    assert unseen(judge(NetfilterFacts(here=namespace))) == ["nf_conntrack_count", "nftables rules"]


def test_rules_on_the_way() -> None:
    chains = (
        Chain(table="inet filter", name="input", kind="filter", hook="input", rules=3, packets=17),
        Chain(table="netdev x", name="early", kind="filter", hook="ingress", rules=1),
    )
    found = only(judge(here(Ruleset(chains=chains))))
    assert (found.name, found.level) == ("rules-on-links", "note")
    assert found.read == "inet filter input (filter, input): 3 rules, 17 packets counted"
    assert findings(judge(here(Ruleset(chains=chains), macvlan=False))) == []
    assert "no nftables rules on the way of a packet" in seen(judge(here(Ruleset())))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (1, [("bridge-parent-rules", "wrong")]),
        (0, []),
        (Unchecked("bridge-nf-call-iptables", "there is no such file here"), []),
    ],
)
def test_a_bridge_as_parent(setting: int | Unchecked, expected: list[tuple[str, str]]) -> None:
    parents = (BridgeParent(macvlan="mv0", bridge="br0"),)
    assert findings(judge(NetfilterFacts(here=here().here, bridge_parents=parents, bridge_nf=setting))) == expected
    assert findings(judge(NetfilterFacts(here=here().here, bridge_nf=setting))) == []


def test_a_docker_proxy() -> None:
    proxy = UserlandProxy(pid=7, published="0.0.0.0:80", target="172.17.0.2:80")
    assert findings(judge(NetfilterFacts(here=here().here, proxies=(proxy,)))) == [("docker-proxy", "note")]
    proxy = UserlandProxy(pid=7, published="0.0.0.0:80", target="172.17.0.2:80", wanted_by=("services.web.deliver",))
    found = only(judge(NetfilterFacts(here=here().here, proxies=(proxy,))))
    assert found.level == "wrong"
    assert found.read.endswith("; services.web.deliver goes through it")
