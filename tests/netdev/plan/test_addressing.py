from __future__ import annotations

import pytest

from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.plan.plan import plan
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import interfaces, lines
from tests.netdev.picture import ETH0, HL0, address, changed, route, rule, world

MAC = "02:00:00:00:00:01"


def planned(found: NetworkState, rest: str) -> NetPlan:
    return plan("a", interfaces(f'{{hl0: {{parent: eth0, mac: "{MAC}", {rest}}}}}'), found)


def existing(found: NetworkState, rest: str) -> NetPlan:
    return plan("a", interfaces(f"{{eth0: {{kind: existing, {rest}}}}}"), found)


def test_nothing_to_do_when_all_is_there() -> None:
    link_local = address(HL0, "fe80::1/64", protocol=3, scope=253)
    found = world(
        ETH0, HL0, address(HL0, "10.9.0.1/24"), link_local, route(HL0, "10.9.0.0/24", protocol=2),
        route(HL0, "0.0.0.0/0", "10.9.0.254"), route(HL0, "fd00::/16", "fe80::fe", metric=1024),
    )  # fmt: skip
    routes = "routes: [{to: default, via: 10.9.0.254}, {to: 'fd00::/16', via: 'fe80::fe'}]"
    assert planned(found, f"addresses: [10.9.0.1/24], {routes}") == NetPlan()


def test_of_our_own_interface_all_that_is_not_wanted_goes() -> None:
    found = world(ETH0, HL0, address(HL0, "10.7.0.1/24", protocol=0), route(HL0, "10.6.0.0/16", "10.7.0.2", protocol=4))
    assert lines(planned(found, "addresses: [10.9.0.1/24]")) == [
        "hl0: delete route 10.6.0.0/16 via 10.7.0.2",
        "hl0: delete address 10.7.0.1/24",
        "hl0: add address 10.9.0.1/24",
    ]


def test_of_another_s_interface_only_what_bears_our_number_goes() -> None:
    found = world(
        ETH0, address(ETH0, "10.7.0.1/24", protocol=0), address(ETH0, "10.5.0.1/24"),
        route(ETH0, "10.6.0.0/16", "10.7.0.2", protocol=4), route(ETH0, "10.4.0.0/16", "10.7.0.2"),
    )  # fmt: skip
    expected = ["eth0: delete route 10.4.0.0/16 via 10.7.0.2", "eth0: delete address 10.5.0.1/24"]
    assert lines(existing(found, "addresses: [10.7.0.1/24]")) == expected
    assert lines(plan("a", {}, found)) == expected, "also when the configuration does not name it any more"
    assert plan("a", {}, world(ETH0, address(ETH0, "10.7.0.1/24", protocol=0))) == NetPlan()


def test_an_address_that_the_kernel_would_delete_too_comes_back() -> None:
    found = world(ETH0, HL0, address(HL0, "10.9.0.1/24"), address(HL0, "10.9.0.2/24"), address(HL0, "10.8.0.1/24"))
    assert lines(planned(found, "addresses: [10.9.0.2/24, 10.8.0.1/24]")) == [
        "hl0: delete address 10.9.0.2/24",
        "hl0: delete address 10.9.0.1/24",
        "hl0: add address 10.9.0.2/24",
    ]
    assert lines(planned(found, "addresses: [10.9.0.1/24, 10.8.0.1/24]")) == ["hl0: delete address 10.9.0.2/24"]


def test_routes_that_the_kernel_would_drop_with_the_last_address_come_back() -> None:
    theirs = route(ETH0, "10.6.0.0/16", protocol=4, source="10.9.0.1", metric=3)
    found = world(ETH0, address(ETH0, "10.9.0.1/24"), theirs)
    done = existing(found, "addresses: [10.9.0.2/24]")
    assert lines(done) == [
        "eth0: delete route 10.6.0.0/16 metric 3",
        "eth0: delete address 10.9.0.1/24",
        "eth0: add address 10.9.0.2/24",
        "eth0: add route 10.6.0.0/16 metric 3",
    ]
    assert done.steps[0].undo == (done.steps[3].do,)


def test_only_the_main_table_and_plain_routes_are_ours_to_change() -> None:
    found = world(
        ETH0, HL0, route(HL0, "10.6.0.0/16", table=100, protocol=4), route(HL0, "10.5.0.0/16", kind=6),
        route(HL0, "10.4.0.0/16", protocol=2),
    )  # fmt: skip
    assert planned(found, "mtu: 1500") == NetPlan()


@pytest.mark.parametrize("prefix", [24, 32])
def test_an_address_of_another_interface(prefix: int) -> None:
    found = world(ETH0, address(ETH0, f"10.9.0.1/{prefix}", protocol=0))
    assert planned(found, "addresses: [10.9.0.1/24]").problems == (
        "hl0: address 10.9.0.1 is on eth0 already; remove it there or choose another",
    )


def test_an_address_of_an_interface_that_the_plan_deletes_is_free() -> None:
    old = changed(HL0, index=9, name="old0", alias="hostlane:a:old0", mac="02:00:00:00:00:99")
    found = planned(world(ETH0, old, address(old, "10.9.0.1/24")), "addresses: [10.9.0.1/24]")
    assert not found.problems
    assert lines(found)[0] == "old0: delete"


TABLE = "source_table: 100"


@pytest.mark.failure("25")
def test_networks_and_routes_stand_in_the_interfaces_own_table_too() -> None:
    """Two addresses of one network make one route of it."""
    addresses = 'addresses: [10.9.0.1/24, 10.9.0.2/24, "fd00::1/64"], routes: [{to: default, via: 10.9.0.254}]'
    found = [line for line in lines(planned(world(ETH0), f"{addresses}, {TABLE}")) if "route" in line]
    assert found == [
        "hl0: add route 0.0.0.0/0 via 10.9.0.254",
        "hl0: add route 10.9.0.0/24 in table 100",
        "hl0: add route fd00::/64 metric 1024 in table 100",
        "hl0: add route 0.0.0.0/0 via 10.9.0.254 in table 100",
    ]


@pytest.mark.failure("25")
def test_of_another_table_only_what_bears_our_number_goes() -> None:
    found = world(
        ETH0, HL0, address(HL0, "10.9.0.1/24"), route(HL0, "10.9.0.0/24", table=100), rule("10.9.0.1", 100),
        route(HL0, "10.8.0.0/16", table=100), route(HL0, "10.9.0.0/24", table=99), route(HL0, "10.7.0.0/16", protocol=4,
        table=98),
    )  # fmt: skip
    assert lines(planned(found, f"addresses: [10.9.0.1/24], {TABLE}")) == [
        "hl0: delete route 10.8.0.0/16 in table 100",
        "hl0: delete route 10.9.0.0/24 in table 99",
    ]


@pytest.mark.failure("25")
def test_a_table_goes_and_comes_with_the_last_address() -> None:
    found = world(
        ETH0, HL0, address(HL0, "10.9.0.1/24"), route(HL0, "10.9.0.0/24", table=100), rule("10.9.0.1", 100)
    )
    assert lines(planned(found, f"addresses: [10.9.0.2/24], {TABLE}")) == [
        "hl0: delete rule from 10.9.0.1 lookup 100",
        "hl0: delete route 10.9.0.0/24 in table 100",
        "hl0: delete address 10.9.0.1/24",
        "hl0: add address 10.9.0.2/24",
        "hl0: add route 10.9.0.0/24 in table 100",
        "hl0: add rule from 10.9.0.2 lookup 100",
    ]
