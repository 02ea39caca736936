from __future__ import annotations

from typing import Any

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.path import ChildAddress, LinkUse, OffloadedInterface, PathFacts, PeerPath, SourceUse, judge
from tests.check.rules.lines import findings, only, seen, unseen

MACVLAN = OffloadedInterface(interface="mv0", kind="macvlan", addresses=("10.0.0.1/24",))


def way(**more: Any) -> PeerPath:
    return PeerPath(**{"peer": "b", "name": "b.example", "address": "10.0.0.2", "interface": "mv0", **more})


@pytest.mark.parametrize(
    ("found", "offloaded", "expected"),
    [
        (way(kind="macvlan", offloaded=True), (MACVLAN,), []),
        (way(kind="vf", offloaded=True, via="10.0.0.9"), (), []),
        (way(kind=""), (MACVLAN,), []),
        (way(kind="veth"), (MACVLAN,), []),
        (way(kind="veth", via="172.17.0.1"), (MACVLAN,), [("bridged-route", "wrong")]),
        (way(kind="veth", via="172.17.0.1"), (), [("bridge-on-the-way", "note")]),
        (way(kind="bridge"), (MACVLAN,), [("bridged-route", "wrong")]),
        (way(kind="bridge"), (), [("bridge-on-the-way", "note")]),
        (way(kind="macvlan", offloaded=True, up=False), (MACVLAN,), [("interface-down", "wrong")]),
        (way(kind="", local=True), (), [("peer-is-here", "note")]),
        (way(interface=None), (), [("no-route", "wrong")]),
        (way(address=None, problem="name or service not known"), (), [("unresolved-peer", "wrong")]),
    ],
)
def test_ways(found: PeerPath, offloaded: tuple[OffloadedInterface, ...], expected: list[tuple[str, str]]) -> None:
    assert findings(judge(PathFacts(ways=(found,), offloaded=offloaded))) == expected


def test_a_bridge_is_passed_over_for_the_macvlan() -> None:
    found = only(judge(PathFacts(ways=(way(interface="eth0", kind="veth", via="172.17.0.1"),), offloaded=(MACVLAN,))))
    assert "mv0 (macvlan, 10.0.0.1/24)" in found.read
    assert found.mend == "ip route replace 10.0.0.2 dev mv0"


def child(**more: Any) -> PathFacts:
    item = ChildAddress(
        **{"label": "container x", "address": "10.0.0.7", "parent": "eth0", "interface": "eth0", **more}
    )
    return PathFacts(ways=(way(),), children=(item,))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (child(), [("unreachable-child", "note")]),
        (child(wanted_by=("services.web.deliver",)), [("unreachable-child", "wrong")]),
        (child(interface=None), [("unreachable-child", "note")]),
        (child(interface="mv0", mode="bridge"), []),
        (child(interface="mv0", mode="private"), [("unreachable-child", "note")]),
        (child(interface="eth1"), []),
    ],
    ids=["parent", "wanted", "no route", "beside it", "private", "another cable"],
)
def test_children(facts: PathFacts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def test_children_that_cannot_be_seen() -> None:
    assert unseen(judge(PathFacts(ways=(way(),), children=Unchecked("2 interfaces", "root")))) == ["2 interfaces"]


def test_where_links_arrive() -> None:
    assert findings(judge(PathFacts(ways=(way(),), listen="10.0.0.1"))) == [("no-link-address", "wrong")]
    facts = PathFacts(ways=(way(),), listen="10.0.0.1", listening="eth0", missing="there is no interface hl9")
    assert only(judge(facts)).read == "there is no interface hl9"
    facts = PathFacts(ways=(way(kind="macvlan"),), listen="10.0.0.1", listening="mv0")
    assert seen(judge(facts)) == ["links.listen 10.0.0.1 is an address of mv0", "10.0.0.2 (b) through mv0 (macvlan)"]


def test_an_address_that_is_somewhere_else_now() -> None:
    facts = PathFacts(ways=(way(kind="macvlan"),), listen="10.0.0.1", lent="net.ipv4.ip_nonlocal_bind")
    assert findings(judge(facts)) == [("lent-link-address", "note")]


def test_addresses_to_reach_services_from() -> None:
    here = SourceUse(key="services.db.source", address="10.0.0.5", interface="eth0")
    gone = SourceUse(key="services.db.source", address="10.0.0.6", interface=None)
    facts = PathFacts(ways=(way(kind="macvlan"),), sources=(here, gone))
    assert findings(judge(facts)) == [("no-source-address", "wrong")]
    assert "services.db.source 10.0.0.5 is an address of eth0" in seen(judge(facts))


def test_no_peers() -> None:
    assert unseen(judge(PathFacts())) == ["ways to peers"]
    assert [line.why for line in judge(PathFacts())] == ["no peers are known; give --config FILE"]  # type: ignore[union-attr]
    assert [line.why for line in judge(PathFacts(configured=True))] == ["no peers are known"]  # type: ignore[union-attr]


def test_what_links_use_beside_what_they_are_meant_to() -> None:
    use = LinkUse(peer="b", address="10.0.0.2", interface="eth0", up=True)
    facts = PathFacts(ways=(way(),), listen="10.0.0.1", listening="mv0", meant="mv0", subnet="10.0.0.0/24", used=(use,))
    found = only(judge(facts))
    assert (found.name, found.level, found.where) == ("links-elsewhere", "wrong", "peer b")
    assert found.mend.startswith(
        "ip route replace 10.0.0.0/24 dev mv0 table 7600; ip rule add from 10.0.0.1 lookup 7600 ("
    )
    bound = PathFacts(ways=(way(),), meant="mv0", used=(LinkUse(peer="b", address="1", interface="mv0", up=True),))
    assert findings(judge(bound)) == []
    assert findings(judge(PathFacts(ways=(way(),), meant=None, used=(use,)))) == [], "any will do"
    assert unseen(judge(PathFacts(ways=(way(),), used=Unchecked("links", "no")))) == ["links"]
