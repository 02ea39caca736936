"""Rules for what comes from an interface's addresses: which there shall be, whose they are, and in which order."""

from __future__ import annotations

import pytest

from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.plan.plan import plan, removal
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import interfaces, lines
from tests.netdev.picture import ETH0, HL0, address, changed, route, rule, world

pytestmark = pytest.mark.failure("25")

HL = 'hl0: {parent: eth0, mac: "02:00:00:00:00:01", addresses: [10.9.0.1/24, "fd00::1/64"], source_table: 100}'
NIC = "eth0: {kind: existing, addresses: [10.9.0.1/24], source_table: 100}"
THERE = (
    ETH0, HL0, address(HL0, "10.9.0.1/24"), address(HL0, "fd00::1/64"), route(HL0, "10.9.0.0/24", table=100),
    route(HL0, "fd00::/64", table=100, metric=1024),
)  # fmt: skip


def planned(text: str, found: NetworkState) -> NetPlan:
    return plan("a", interfaces(f"{{{text}}}"), found)


def rules(found: NetPlan) -> list[str]:
    return [line for line in lines(found) if "rule" in line]


def test_each_address_has_a_rule_and_they_come_last() -> None:
    found = planned(HL, world(ETH0))
    assert lines(found)[-2:] == ["hl0: add rule from 10.9.0.1 lookup 100", "hl0: add rule from fd00::1 lookup 100"]
    assert [str(step.undo[0]) for step in found.steps[-2:]] == [
        "hl0: delete rule from 10.9.0.1 lookup 100",
        "hl0: delete rule from fd00::1 lookup 100",
    ]


@pytest.mark.parametrize("protocol", [72, 0, 4], ids=["ours", "not said", "static"])
def test_one_that_is_there_is_not_added_whoever_made_it(protocol: int) -> None:
    found = world(*THERE, rule("10.9.0.1", 100, protocol), rule("fd00::1", 100, protocol))
    assert planned(HL, found) == NetPlan()
    assert rules(removal("a", found)) == (
        ["hl0: delete rule from 10.9.0.1 lookup 100", "hl0: delete rule from fd00::1 lookup 100"]
        if protocol == 72
        else []
    )


def test_those_not_wanted_any_more_go_first_and_come_back_if_a_later_step_fails() -> None:
    found = world(*THERE, rule("10.9.0.1", 99), rule("10.9.0.1", 100), rule("fd00::1", 100), rule("10.9.0.7", 100))
    done = planned(HL, found)
    assert lines(done) == ["hl0: delete rule from 10.9.0.1 lookup 99", "rules: delete rule from 10.9.0.7 lookup 100"]
    assert [str(step.undo[0]) for step in done.steps] == [
        "hl0: add rule from 10.9.0.1 lookup 99",
        "rules: add rule from 10.9.0.7 lookup 100",
    ]
    assert lines(removal("a", found))[:4] == [
        "hl0: delete rule from 10.9.0.1 lookup 99",
        "hl0: delete rule from 10.9.0.1 lookup 100",
        "hl0: delete rule from fd00::1 lookup 100",
        "rules: delete rule from 10.9.0.7 lookup 100",
    ]


def test_another_proxy_in_this_namespace_keeps_its_own() -> None:
    theirs = changed(HL0, alias="hostlane:b:hl0")
    found = world(ETH0, theirs, address(theirs, "10.9.0.1/24"), rule("10.9.0.1", 100))
    assert removal("a", found) == NetPlan()


def test_an_interface_of_somebody_else_may_have_them() -> None:
    assert lines(planned(NIC, world(ETH0))) == [
        "eth0: add address 10.9.0.1/24",
        "eth0: add route 10.9.0.0/24 in table 100",
        "eth0: add rule from 10.9.0.1 lookup 100",
    ]
    found = world(ETH0, address(ETH0, "10.9.0.1/24"), route(ETH0, "10.9.0.0/24", table=100), rule("10.9.0.1", 100))
    assert lines(removal("a", found)) == [
        "eth0: delete rule from 10.9.0.1 lookup 100",
        "eth0: delete route 10.9.0.0/24 in table 100",
        "eth0: delete address 10.9.0.1/24",
    ]


def test_a_table_with_somebody_elses_routes_is_refused() -> None:
    found = planned(HL, world(ETH0, route(ETH0, "10.1.0.0/16", protocol=4, table=100)))
    assert found.problems == (
        "hl0: routing table 100 has a route that is not Hostlane's, to 10.1.0.0/16; delete it (ip route flush table "
        "100) or choose another table",
    )
