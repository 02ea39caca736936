from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules import sysctls
from proxy.check.rules.sysctls import InterfaceAddress, SysctlFacts, judge, shared_subnets
from tests.check.rules.lines import findings, only, unseen

GOOD: dict[str, int | Unchecked] = {sysctls.SLOW_START: 0, sysctls.SOMAXCONN: 4096, sysctls.KEEPALIVE: 900}
TWINS = (InterfaceAddress("eth0", "10.0.0.1/24"), InterfaceAddress("mv0", "10.0.0.2/24"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (sysctls.SLOW_START, 1, [("slow-start-after-idle", "note")]),
        (sysctls.SOMAXCONN, 4095, [("small-backlog", "wrong")]),
        (sysctls.SOMAXCONN, 65535, []),
        (sysctls.KEEPALIVE, 901, [("late-keepalive", "note")]),
    ],
)
def test_one_value(name: str, value: int, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(SysctlFacts(values=GOOD, addresses=()))) == []
    assert findings(judge(SysctlFacts(values={**GOOD, name: value}, addresses=()))) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"arp-flux"}),
        ({"net.ipv4.conf.all.arp_ignore": 1}, set()),
        ({"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.mv0.rp_filter": 1}, {"strict-rp-filter"}),
        ({"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.rp_filter": 1}, {"strict-rp-filter"}),
        (
            {
                "net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.mv0.rp_filter": 2,
                "net.ipv4.conf.eth0.rp_filter": 2,
            },
            set(),
        ),
    ],
)  # fmt: skip
def test_the_greater_of_all_and_the_interface_counts(values: dict[str, int | Unchecked], expected: set[str]) -> None:
    lines = findings(judge(SysctlFacts(values={**GOOD, **values}, addresses=TWINS)))
    assert {name for name, _ in lines} == expected


def test_one_of_two_interfaces() -> None:
    values: dict[str, int | Unchecked] = {**GOOD, "net.ipv4.conf.eth0.arp_ignore": 1}
    found = only(judge(SysctlFacts(values=values, addresses=TWINS)))
    assert found.where == "mv0"
    assert found.mend == "sysctl -w net.ipv4.conf.mv0.arp_ignore=1 net.ipv4.conf.mv0.arp_announce=2"


@pytest.mark.parametrize(
    ("addresses", "shared"),
    [
        (TWINS, {"10.0.0.0/24": ["eth0", "mv0"]}),
        ((TWINS[0], InterfaceAddress("eth0", "10.0.0.3/24")), {}),
        ((TWINS[0], InterfaceAddress("mv0", "10.0.1.3/24")), {}),
        ((InterfaceAddress("a", "10.0.0.1/32"), InterfaceAddress("b", "10.0.0.1/32")), {}),
        ((InterfaceAddress("lo", "127.0.0.1/8"), InterfaceAddress("x", "127.0.0.2/8")), {}),
    ],
)
def test_shared_subnets(addresses: tuple[InterfaceAddress, ...], shared: dict[str, list[str]]) -> None:
    assert shared_subnets(addresses) == shared


@pytest.mark.parametrize(
    ("addresses", "lax"),
    [
        ((InterfaceAddress("mv0", "10.1.0.1/24"),), "eth0"),
        ((InterfaceAddress("eth0", "10.0.0.1/24"), InterfaceAddress("mv0", "10.1.0.1/24")), "eth0, mv0"),
        ((InterfaceAddress("eth0", "10.0.0.1/24"),), "mv0"),
        ((), None),
        (TWINS, "eth0, mv0"),
    ],
)
def test_a_macvlan_and_its_parent_are_one_segment(addresses: tuple[InterfaceAddress, ...], lax: str | None) -> None:
    """Who has no address of his own answers for the other's all the same."""
    facts = SysctlFacts(values=GOOD, addresses=addresses, parents={"mv0": "eth0"})
    if lax is None:
        assert findings(judge(facts)) == []
    else:
        assert only(judge(facts)).where == lax


def test_what_cannot_be_read() -> None:
    values: dict[str, int | Unchecked] = {sysctls.SOMAXCONN: Unchecked(sysctls.SOMAXCONN, "no")}
    lines = list(judge(SysctlFacts(values=values, addresses=())))
    assert (findings(lines), unseen(lines)) == ([], [sysctls.SOMAXCONN])
